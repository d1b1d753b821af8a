-- For MySQL 8 and MariaDB. One row is the newest value of one metric. Times are UTC. ver grows with each write of the
-- row, and a row that was deleted comes back with a larger one, so that caches can tell which of two copies is newer.
CREATE TABLE IF NOT EXISTS cnf_metrics (
    cnf_id      varchar(191) NOT NULL PRIMARY KEY,
    `timestamp` datetime(6)  NOT NULL,
    metric_type varchar(191) NOT NULL,
    value       double       NOT NULL,
    unit        varchar(64)  NOT NULL,
    status      varchar(32)  NOT NULL,
    ver         bigint       NOT NULL DEFAULT 1
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
