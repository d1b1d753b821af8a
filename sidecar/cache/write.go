package cache

import "context"

// Write makes a change for an application: through the member that owns the key. nil means committed; the answer is the
// row as it is now. After it this member answers with nothing older. Every error has a Kind.
func (d *Dataset) Write(ctx context.Context, c Change) (Answer, error) {
	return Answer{}, &Error{Kind: KindReadOnly, Err: errReadOnly}
}

// ServeWrite makes a change for another member, in this one, and tells those who follow this member.
func (d *Dataset) ServeWrite(ctx context.Context, c Change) (Answer, error) {
	return Answer{}, &Error{Kind: KindReadOnly, Err: errReadOnly}
}
