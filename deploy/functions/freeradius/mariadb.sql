-- One row per user: the attributes of radcheck and radreply as rlm_rest reads them.
CREATE VIEW radius_users AS
SELECT username, JSON_OBJECTAGG(name, JSON_OBJECT('op', op, 'do_xlat', FALSE, 'value', JSON_COMPACT(vals))) AS attributes
FROM (
	SELECT username, name, CASE WHEN count(*) > 1 THEN '+=' ELSE min(op) END AS op, JSON_ARRAYAGG(value ORDER BY id) AS vals
	FROM (
		SELECT id, username, concat('control:', attribute) AS name, op, value FROM radcheck
		UNION ALL
		SELECT id, username, concat('reply:', attribute), op, value FROM radreply
	) AS attribute
	GROUP BY username, name
) AS attribute
GROUP BY username;
