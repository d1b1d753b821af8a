-- One row per user: the attributes of radcheck and radreply as rlm_rest reads them.
CREATE VIEW radius_users AS
SELECT username, json_object_agg(name, json_build_object('op', op, 'do_xlat', false, 'value', vals) ORDER BY name) AS attributes
FROM (
	SELECT username, name, CASE WHEN count(*) > 1 THEN '+=' ELSE min(op) END AS op, json_agg(value ORDER BY id) AS vals
	FROM (
		SELECT id, username, 'control:' || attribute AS name, op, value FROM radcheck
		UNION ALL
		SELECT id, username, 'reply:' || attribute, op, value FROM radreply
	) AS attribute
	GROUP BY username, name
) AS attribute
GROUP BY username;
