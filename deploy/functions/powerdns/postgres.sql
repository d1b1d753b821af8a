-- The names as PowerDNS asks for them, with a dot at the end.
ALTER TABLE records ADD qname varchar(256) GENERATED ALWAYS AS (name || '.') STORED;
CREATE INDEX records_qname ON records (qname);
-- One row per lookup: PowerDNS asks for the SOA of a name and of each parent, to find the zone, and for all records of a name.
CREATE VIEW pdns_lookups AS
SELECT qname, 'ANY' AS qtype, json_build_object('result', json_agg(json_build_object('qname', qname, 'qtype', type,
	'content', CASE WHEN type IN ('MX', 'SRV') THEN prio || ' ' || content ELSE content END,
	'ttl', ttl, 'auth', auth, 'domain_id', domain_id) ORDER BY id)) AS answer
FROM records WHERE type IS NOT NULL AND NOT disabled GROUP BY qname
UNION ALL
SELECT qname, 'SOA', json_build_object('result', coalesce(json_agg(json_build_object('qname', qname, 'qtype', type,
	'content', content, 'ttl', ttl, 'auth', auth, 'domain_id', domain_id)) FILTER (WHERE type = 'SOA'), '[]'))
FROM records WHERE NOT disabled GROUP BY qname;
-- Metadata of a zone.
CREATE VIEW pdns_metadata AS
SELECT domains.name || '.' AS zone, json_build_object('result', coalesce(json_object_agg(kind, contents) FILTER (WHERE kind IS NOT NULL), '{}')) AS answer
FROM domains LEFT JOIN (
	SELECT domain_id, kind, json_agg(content ORDER BY id) AS contents FROM domainmetadata GROUP BY domain_id, kind
) AS m ON m.domain_id = domains.id GROUP BY domains.name;
