-- One list for each job, as Prometheus wants it.
CREATE VIEW target_lists AS
SELECT job, json_agg(json_build_object('targets', json_build_array(address), 'labels', json_build_object('site', site))
                     ORDER BY address) AS list
FROM scrape_targets GROUP BY job;
