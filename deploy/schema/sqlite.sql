-- Each row is the latest value of one metric. Times are UTC. ver grows with each write of the row, also when a deleted row
-- is inserted again, so that caches can tell which of two copies is newer.
CREATE TABLE IF NOT EXISTS cnf_metrics (
    cnf_id      TEXT      NOT NULL PRIMARY KEY,
    "timestamp" TIMESTAMP NOT NULL,
    metric_type TEXT      NOT NULL,
    value       DOUBLE    NOT NULL,
    unit        TEXT      NOT NULL,
    status      TEXT      NOT NULL,
    ver         BIGINT    NOT NULL DEFAULT 1
) WITHOUT ROWID;
