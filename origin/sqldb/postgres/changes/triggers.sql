{{part install}}
{{Warnings}}-- Ringside: reports the changes of {{Described}} as dataset {{Dataset}}, at commit.
-- Safe to run again. Needs PostgreSQL 14, the right to create triggers on the table, and the right to create functions,
-- and the tables below, in its schema.
-- Not reported: TRUNCATE of a partition that is created later, DETACH and DROP of a partition, rows that logical replication
-- applies, and writers that disable triggers (session_replication_role). Invalidate the dataset after these.
{{TwoPhaseCommit}}
-- Remove this before you drop or rename a column that it names; otherwise the application's writes fail.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
{{CreateTable}}
CREATE OR REPLACE FUNCTION {{Object}}() RETURNS trigger LANGUAGE plpgsql {{SecurityDefiner}}
SET search_path = pg_catalog, pg_temp
-- Keys are printed as Ringside reads them, whatever the settings of the writer's session are.
SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' {{/* guard:key-depends-on-session */}}
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $ringside$
DECLARE
  many boolean := true; -- too many rows to report each, or TRUNCATE
BEGIN
  {{MissingTable}}
  IF TG_OP = 'INSERT' THEN
    many := {{ManyNew}};
    IF NOT many THEN
      {{Report}} FROM (
        SELECT {{KeyNew}}, {{VersionNew}} {{FromNew}} WHERE {{HasKeyNew}}
      {{Changed}}
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    many := {{ManyOld}};
    IF NOT many THEN
      {{Report}} FROM (
        SELECT {{KeyOld}}, 0 {{FromOld}} WHERE {{HasKeyOld}}
      {{Changed}}
    END IF;
  ELSIF TG_OP = 'UPDATE' THEN
    many := {{ManyNew}};
    IF NOT many THEN
      -- Reports both keys if the key itself was changed, and a version only if it has grown.
      {{Report}} FROM (
        SELECT k, CASE WHEN now.v > before.v THEN now.v ELSE 0 END {{/* guard:postgres-unchanged-version-reported */}}
        FROM (SELECT {{KeyNew}}, {{VersionNew}} {{FromNew}} WHERE {{HasKeyNew}}) AS now (k, v)
        FULL JOIN (SELECT {{KeyOld}}, {{VersionOld}} {{FromOld}} WHERE {{HasKeyOld}}) AS before (k, v)
        USING (k)
      {{Changed}}
    END IF;
  END IF;
  IF many THEN
    {{ReportAll}}
  END IF;
  RETURN NULL;
END
$ringside$;
{{Revoke}}
{{Triggers}}
-- Nothing has reported the changes from before the triggers existed.
{{ReportAllNow}}
COMMIT;
{{part two-phase commit}}
-- PREPARE TRANSACTION (two-phase commit, XA, JTA) fails in every transaction that notifies: PostgreSQL does not support it. If the
-- application uses it, configure feed: {kind: poll} instead.
{{part table of changes}}

CREATE TABLE IF NOT EXISTS {{Changes}} (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dataset text NOT NULL,
  row_key text, -- NULL: any row of the dataset may have changed
  row_version bigint NOT NULL DEFAULT 0, -- 0: unknown
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(), -- shows which rows a snapshot sees
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS {{XidIndex}} ON {{Changes}} (xid);
-- The account that Ringside connects with must be able to read it:
--   GRANT SELECT, DELETE ON {{Changes}} TO ...;
-- Ringside deletes old rows, if it may (DELETE). Otherwise delete them regularly, every minute or every hour (cron, pg_cron). Keep
-- them for longer than the longest transaction, and than the longest time without a running Ringside after which it must not miss
-- changes:
--   DELETE FROM {{Changes}} WHERE seq <
--     (SELECT max(seq) FROM {{Changes}} WHERE changed_at < now() - interval '1 hour');

{{part table of the channel}}

-- Every role of the database can listen to a channel whose name it knows, and send to it. So the name is random, and only the
-- owner of this table, and roles with SELECT on it, can read it. The account that Ringside connects with must be able to:
--   GRANT SELECT ON {{ChannelTable}} TO ...;
CREATE TABLE IF NOT EXISTS {{ChannelTable}} (
  channel text NOT NULL,
  one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);
REVOKE ALL ON {{ChannelTable}} FROM PUBLIC;
INSERT INTO {{ChannelTable}} (channel) VALUES ('ringside_' || replace(gen_random_uuid()::text, '-', '')) ON CONFLICT DO NOTHING;

{{part security definer}}
SECURITY DEFINER -- writers of the table need no rights on it {{/* guard:writer-needs-rights-on-changes */}}
{{part missing table}}
IF to_regclass('{{Needed}}') IS NULL THEN {{/* guard:dropped-table-fails-writes */}}
    RETURN NULL; -- Ringside reports that the table is missing; the application's write must not fail
  END IF;
{{part revoke}}
REVOKE ALL ON FUNCTION {{Object}}() FROM PUBLIC; -- so that others cannot use it in triggers of their tables
{{part changed}}
) AS changed (k, v) WHERE octet_length(k) <= {{MaxKey}}; -- no cache holds a longer key {{/* guard:long-key-fails-write */}}
{{part report to the table}}
INSERT INTO {{Changes}} (dataset, row_key, row_version) SELECT '{{Dataset}}', k, v
{{part report to the channel}}
PERFORM pg_notify({{Channel}}, json_build_object('d', '{{Dataset}}', 'k', k, 'v', v)::text)
{{part report all to the table}}
INSERT INTO {{Changes}} (dataset) VALUES ('{{Dataset}}');
{{part report all to the channel}}
pg_notify({{Channel}}, '{"d":"{{Dataset}}","all":true}');
{{part triggers for rows}}
CREATE OR REPLACE TRIGGER {{Trigger _insert}} AFTER INSERT ON {{On}}
  FOR EACH ROW EXECUTE FUNCTION {{Object}}();
CREATE OR REPLACE TRIGGER {{Trigger _update}} AFTER UPDATE ON {{On}}
  FOR EACH ROW EXECUTE FUNCTION {{Object}}();
CREATE OR REPLACE TRIGGER {{Trigger _delete}} AFTER DELETE ON {{On}}
  FOR EACH ROW EXECUTE FUNCTION {{Object}}();
{{part triggers for statements}}
CREATE OR REPLACE TRIGGER {{Trigger _insert}} AFTER INSERT ON {{On}}
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {{Object}}();
CREATE OR REPLACE TRIGGER {{Trigger _update}} AFTER UPDATE ON {{On}}
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {{Object}}();
CREATE OR REPLACE TRIGGER {{Trigger _delete}} AFTER DELETE ON {{On}}
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION {{Object}}();
{{part trigger for truncate}}
CREATE OR REPLACE TRIGGER {{Trigger _truncate}} AFTER TRUNCATE ON {{On}}
  FOR EACH STATEMENT EXECUTE FUNCTION {{Object}}();
{{part remove}}
-- Ringside: stops reporting the changes of {{Described}} as dataset {{Dataset}}.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
{{DropTriggers}}
DROP FUNCTION IF EXISTS {{Object}}();
COMMIT;
{{TableRemains}}
{{part drop triggers}}
DROP TRIGGER IF EXISTS {{Trigger _insert}} ON {{On}};
DROP TRIGGER IF EXISTS {{Trigger _update}} ON {{On}};
DROP TRIGGER IF EXISTS {{Trigger _delete}} ON {{On}};
{{part drop trigger for truncate}}
DROP TRIGGER IF EXISTS {{Trigger _truncate}} ON {{On}};
{{part table of changes remains}}
-- Other datasets may record their changes in the same table. If none does:
--   DROP TABLE {{Changes}};
{{part table of the channel remains}}
-- Other datasets may use the same channel. If none does:
--   DROP TABLE {{ChannelTable}};
