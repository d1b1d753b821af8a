// Command redisclient uses a sidecar through two clients of Redis, go-redis and rueidis, and fails if one of them gets
// something else than from Redis. Usage: redisclient HOST:PORT DATASET
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: redisclient HOST:PORT DATASET")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, dataset string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: address, ClientName: "test"})
	defer client.Close()
	if err := useGoRedis(ctx, client, dataset+":"); err != nil {
		return fmt.Errorf("go-redis: %w", err)
	}
	if err := useRueidis(ctx, client, address, dataset+":cached"); err != nil {
		return fmt.Errorf("rueidis: %w", err)
	}
	return nil
}

// check returns an error unless a reply is the wanted one.
func check(what string, got, want any) error {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func useGoRedis(ctx context.Context, c *redis.Client, prefix string) error {
	value := func(s string) string { return `{"note":"` + s + `"}` }
	noted := func(r *redis.StringCmd) string {
		var id, note string
		_, _ = fmt.Sscanf(r.Val(), `{"id":%q,"note":%q`, &id, &note)
		return note
	}
	piped, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, prefix+"a", value("1"), 0)
		p.Get(ctx, prefix+"a")
		p.Get(ctx, prefix+"none")
		return nil
	})
	if !errors.Is(err, redis.Nil) {
		return fmt.Errorf("a pipeline with a key that does not exist: got %v, want redis.Nil", err)
	}
	expired := c.Set(ctx, prefix+"a", value("1"), time.Minute).Err()
	many := c.MGet(ctx, prefix+"a", prefix+"none").Val()
	keys, _, scanErr := c.Scan(ctx, 0, prefix+"*", 100).Result()
	return errors.Join(
		piped[0].Err(), scanErr,
		check("GET in a pipeline", noted(piped[1].(*redis.StringCmd)), "1"),
		check("SET NX of a row that exists", c.SetNX(ctx, prefix+"a", value("2"), 0).Val(), false),
		check("SET XX of a row that exists", c.SetXX(ctx, prefix+"a", value("3"), 0).Val(), true),
		check("GET", noted(c.Get(ctx, prefix+"a")), "3"),
		check("MGET", many[1], nil),
		check("SCAN finds keys", len(keys) > 0, true),
		check("a ttl in SET is refused", expired != nil, true),
		check("TTL", c.TTL(ctx, prefix+"none").Val(), time.Duration(-2)),
		check("EXISTS", c.Exists(ctx, prefix+"a", prefix+"none").Val(), 1),
		check("an unknown command", c.LPush(ctx, prefix+"a", "1").Err() != nil, true),
		check("DEL", c.Del(ctx, prefix+"a", prefix+"none").Val(), 1),
		check("GET after DEL", errors.Is(c.Get(ctx, prefix+"a").Err(), redis.Nil), true),
	)
}

// useRueidis reads a key from the cache in the client, until a write through another client has made that invalid.
func useRueidis(ctx context.Context, writer *redis.Client, address, key string) error {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}})
	if err != nil {
		return err
	}
	defer c.Close()
	read := func() (string, bool, error) {
		r := c.DoCache(ctx, c.B().Get().Key(key).Cache(), time.Hour)
		text, err := r.ToString()
		return text, r.IsCacheHit(), err
	}
	if err := writer.Set(ctx, key, `{"note":"old"}`, 0).Err(); err != nil {
		return err
	}
	before, hit := "", false
	for !hit {
		if before, hit, err = read(); err != nil {
			return err
		}
	}
	if err := writer.Set(ctx, key, `{"note":"new"}`, 0).Err(); err != nil {
		return err
	}
	for began := time.Now(); ; {
		after, _, err := read()
		if err != nil {
			return err
		}
		if after != before {
			break
		}
		if time.Since(began) > 10*time.Second { // the ttl is longer
			return fmt.Errorf("the cache of the client still has %s after the row was written", after)
		}
	}
	return nil
}
