-- Each row is the latest value of one metric. Times are UTC. ver grows with each write of the row, also when a deleted row
-- is inserted again, so that caches can tell which of two copies is newer.
CREATE TABLE IF NOT EXISTS cnf_metrics (
    cnf_id      text COLLATE "C"  NOT NULL PRIMARY KEY,
    "timestamp" timestamptz       NOT NULL,
    metric_type text              NOT NULL,
    value       double precision  NOT NULL,
    unit        text              NOT NULL,
    status      text              NOT NULL,
    ver         bigint            NOT NULL DEFAULT 1
);
