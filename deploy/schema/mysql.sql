-- For MySQL 8 and MariaDB. Each row is the latest value of one metric. Times are UTC. ver grows with each write of the row,
-- also when a deleted row is inserted again, so that caches can tell which of two copies is newer.
CREATE TABLE IF NOT EXISTS cnf_metrics (
    cnf_id      varchar(191) NOT NULL PRIMARY KEY,
    `timestamp` datetime(6)  NOT NULL,
    metric_type varchar(191) NOT NULL,
    value       double       NOT NULL,
    unit        varchar(64)  NOT NULL,
    status      varchar(32)  NOT NULL,
    ver         bigint       NOT NULL DEFAULT 1
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
