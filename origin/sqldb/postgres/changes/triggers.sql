{{define "install"}}{{range .Warnings}}-- WARNING: {{.}}
{{end}}-- Ringside: reports the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}, at commit.
-- Safe to run again. Needs PostgreSQL 14, the right to create triggers on the table, and the right to create functions
-- {{if .Polled}}and tables {{end}}in its schema.
-- Not reported: TRUNCATE of a partition that is created later, DETACH and DROP of a partition, rows that logical replication
-- applies, and writers that disable triggers (session_replication_role). Invalidate the dataset after these.
{{if not .Polled}}-- PREPARE TRANSACTION (two-phase commit, XA, JTA) fails in every transaction that notifies: PostgreSQL does not support it. If the
-- application uses it, configure feed: {kind: poll} instead.
{{end}}-- Remove this before you drop or rename a column that it names; otherwise the application's writes fail.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
{{if .Polled}}
CREATE TABLE IF NOT EXISTS {{.Changes ""}} (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dataset text NOT NULL,
  row_key text, -- NULL: any row of the dataset may have changed
  row_version bigint NOT NULL DEFAULT 0, -- 0: unknown
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(), -- shows which rows a snapshot sees
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS {{.Quote .XidIndex}} ON {{.Changes ""}} (xid);
-- The account that Ringside connects with must be able to read it:
--   GRANT SELECT, DELETE ON {{.Changes ""}} TO ...;
-- Ringside deletes old rows, if it may (DELETE). Otherwise delete them regularly, every minute or every hour (cron, pg_cron). Keep
-- them for longer than the longest transaction, and than the longest time without a running Ringside after which it must not miss
-- changes:
--   DELETE FROM {{.Changes ""}} WHERE seq <
--     (SELECT max(seq) FROM {{.Changes ""}} WHERE changed_at < now() - interval '1 hour');
{{end}}{{if .RandomChannel}}
-- Every role of the database can listen to a channel whose name it knows, and send to it. So the name is random, and only the
-- owner of this table, and roles with SELECT on it, can read it. The account that Ringside connects with must be able to:
--   GRANT SELECT ON {{.ChannelTable}} TO ...;
CREATE TABLE IF NOT EXISTS {{.ChannelTable}} (
  channel text NOT NULL,
  one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);
REVOKE ALL ON {{.ChannelTable}} FROM PUBLIC;
INSERT INTO {{.ChannelTable}} (channel) VALUES ('ringside_' || replace(gen_random_uuid()::text, '-', '')) ON CONFLICT DO NOTHING;
{{end}}
CREATE OR REPLACE FUNCTION {{.Object ""}}() RETURNS trigger LANGUAGE plpgsql{{if or .Polled .RandomChannel}}
SECURITY DEFINER -- writers of the table need no rights on the changes{{end}} {{- /* guard:writer-needs-rights-on-changes */}}
SET search_path = pg_catalog, pg_temp
-- Keys are printed as Ringside reads them, whatever the settings of the writer's session are.
SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' {{- /* guard:key-depends-on-session */}}
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $ringside$
DECLARE
  many boolean := true; -- too many rows to report each, or TRUNCATE
BEGIN
{{- if .Polled}}
  IF to_regclass('{{.Literal (.Changes "")}}') IS NULL THEN {{- /* guard:postgres-dropped-changes-table-fails-writes */}}
    RETURN NULL; -- Ringside reports that the table is missing; the application's write must not fail
  END IF;
{{- end}}
{{if .RandomChannel}}  IF to_regclass('{{.Literal .ChannelTable}}') IS NULL THEN {{- /* guard:dropped-channel-fails-writes */}}
    RETURN NULL; -- likewise
  END IF;
{{end}}  IF TG_OP = 'INSERT' THEN
    many := {{template "many new" .}};
    IF NOT many THEN
      {{template "report" .}} FROM (
        SELECT {{.Key .NewRow}}, {{.Version .NewRow}} {{.FromNewRows}}WHERE {{.HasKey .NewRow}}
      {{template "changed" .}}
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    many := {{template "many old" .}};
    IF NOT many THEN
      {{template "report" .}} FROM (
        SELECT {{.Key .OldRow}}, 0 {{.FromOldRows}}WHERE {{.HasKey .OldRow}}
      {{template "changed" .}}
    END IF;
  ELSIF TG_OP = 'UPDATE' THEN
    many := {{template "many new" .}};
    IF NOT many THEN
      -- Reports both keys if the key itself was changed, and a version only if it has grown.
      {{template "report" .}} FROM (
        SELECT k, CASE WHEN now.v > before.v THEN now.v ELSE 0 END {{- /* guard:postgres-unchanged-version-reported */}}
        FROM (SELECT {{.Key .NewRow}}, {{.Version .NewRow}} {{.FromNewRows}}WHERE {{.HasKey .NewRow}}) AS now (k, v)
        FULL JOIN (SELECT {{.Key .OldRow}}, {{.Version .OldRow}} {{.FromOldRows}}WHERE {{.HasKey .OldRow}}) AS before (k, v)
        USING (k)
      {{template "changed" .}}
    END IF;
  END IF;
  IF many THEN
    {{template "all" .}}
  END IF;
  RETURN NULL;
END
$ringside$;
{{- if or .Polled .RandomChannel}}
REVOKE ALL ON FUNCTION {{.Object ""}}() FROM PUBLIC; -- so that others cannot use it in triggers of their tables{{end}}

{{range .Tables}}{{if $.EachRow}}CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_insert")}} AFTER INSERT ON {{.}}
  FOR EACH ROW EXECUTE FUNCTION {{$.Object ""}}();
CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_update")}} AFTER UPDATE ON {{.}}
  FOR EACH ROW EXECUTE FUNCTION {{$.Object ""}}();
CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_delete")}} AFTER DELETE ON {{.}}
  FOR EACH ROW EXECUTE FUNCTION {{$.Object ""}}();
{{else}}CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_insert")}} AFTER INSERT ON {{.}}
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {{$.Object ""}}();
CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_update")}} AFTER UPDATE ON {{.}}
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {{$.Object ""}}();
CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_delete")}} AFTER DELETE ON {{.}}
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION {{$.Object ""}}();
{{end}}CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_truncate")}} AFTER TRUNCATE ON {{.}}
  FOR EACH STATEMENT EXECUTE FUNCTION {{$.Object ""}}();
{{end}}{{range .Partitions}}CREATE OR REPLACE TRIGGER {{$.Quote ($.Name "_truncate")}} AFTER TRUNCATE ON {{.}}
  FOR EACH STATEMENT EXECUTE FUNCTION {{$.Object ""}}();
{{end}}
-- Nothing has reported the changes from before the triggers existed.
{{if .Polled}}{{template "all" .}}{{else}}SELECT pg_notify({{.Channel}}, '{"d":"{{.Dataset.Name}}","all":true}');{{end}}
COMMIT;
{{end}}

{{define "many new"}}{{if .EachRow}}false{{else}}EXISTS (SELECT FROM new_rows OFFSET {{.Many}}){{end}}{{end}}

{{define "many old"}}{{if .EachRow}}false{{else}}EXISTS (SELECT FROM old_rows OFFSET {{.Many}}){{end}}{{end}}

{{define "report"}}{{if .Polled}}INSERT INTO {{.Changes ""}} (dataset, row_key, row_version) SELECT '{{.Dataset.Name}}', k, v
     {{- else}}PERFORM pg_notify({{.Channel}}, json_build_object('d', '{{.Dataset.Name}}', 'k', k, 'v', v)::text){{end}}{{end}}

{{define "changed"}}) AS changed (k, v) WHERE octet_length(k) <= {{.MaxKey}}; -- no cache holds a longer key{{end}} {{- /* guard:long-key-fails-write */}}

{{define "all"}}{{if .Polled}}INSERT INTO {{.Changes ""}} (dataset) VALUES ('{{.Dataset.Name}}');
  {{- else}}PERFORM pg_notify({{.Channel}}, '{"d":"{{.Dataset.Name}}","all":true}');{{end}}{{end}}

{{define "remove"}}-- Ringside: stops reporting the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
{{range .Tables}}DROP TRIGGER IF EXISTS {{$.Quote ($.Name "_insert")}} ON {{.}};
DROP TRIGGER IF EXISTS {{$.Quote ($.Name "_update")}} ON {{.}};
DROP TRIGGER IF EXISTS {{$.Quote ($.Name "_delete")}} ON {{.}};
DROP TRIGGER IF EXISTS {{$.Quote ($.Name "_truncate")}} ON {{.}};
{{end}}{{range .Partitions}}DROP TRIGGER IF EXISTS {{$.Quote ($.Name "_truncate")}} ON {{.}};
{{end -}}
DROP FUNCTION IF EXISTS {{.Object ""}}();
COMMIT;
{{- if .RandomChannel}}
-- Other datasets may use the same channel. If none does:
--   DROP TABLE {{.ChannelTable}};
{{- end}}
{{- if .Polled}}
-- Other datasets may record their changes in the same table. If none does:
--   DROP TABLE {{.Changes ""}};
{{- end}}
{{end}}
