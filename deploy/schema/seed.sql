-- Optional rows for all three databases: placeholders for the metrics of a host until ringside-collector writes them.
-- Existing rows stay unchanged.
INSERT INTO cnf_metrics (cnf_id, timestamp, metric_type, value, unit, status)
SELECT seed.cnf_id, '1970-01-01 00:00:00', seed.metric_type, 0, seed.unit, 'unknown'
FROM (
    SELECT 'CNF-001' AS cnf_id, 'cpu.total' AS metric_type, 'percent' AS unit
    UNION ALL SELECT 'CNF-002', 'load.1m', 'tasks'
    UNION ALL SELECT 'CNF-003', 'load.5m', 'tasks'
    UNION ALL SELECT 'CNF-004', 'load.15m', 'tasks'
    UNION ALL SELECT 'CNF-005', 'memory.used', 'percent'
    UNION ALL SELECT 'CNF-006', 'memory.available', 'bytes'
    UNION ALL SELECT 'CNF-007', 'swap.used', 'percent'
    UNION ALL SELECT 'CNF-008', 'disk.root.used', 'percent'
    UNION ALL SELECT 'CNF-009', 'disk.total.read', 'bytes_per_second'
    UNION ALL SELECT 'CNF-010', 'disk.total.write', 'bytes_per_second'
    UNION ALL SELECT 'CNF-011', 'net.total.rx', 'bytes_per_second'
    UNION ALL SELECT 'CNF-012', 'net.total.tx', 'bytes_per_second'
    UNION ALL SELECT 'CNF-013', 'process.count', 'processes'
    UNION ALL SELECT 'CNF-014', 'host.uptime', 'seconds'
) AS seed
WHERE NOT EXISTS (SELECT 1 FROM cnf_metrics AS held WHERE held.cnf_id = seed.cnf_id);
