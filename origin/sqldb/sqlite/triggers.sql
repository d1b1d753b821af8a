{{define "install"}}-- Ringside: records the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}.
-- Safe to run again.
-- Remove this before you drop or rename a column that it names, or the table of changes; otherwise the application's writes
-- fail.
-- INSERT OR REPLACE runs no delete trigger, unless the writer has set PRAGMA recursive_triggers: the deletion of a row with
-- another key, but the same value in another unique column, is not recorded.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS {{.Changes ""}} (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  dataset TEXT NOT NULL,
  row_key TEXT, -- NULL: any row of the dataset may have changed
  row_version INTEGER NOT NULL DEFAULT 0, -- 0: unknown
  changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
-- Keeps the newest {{.Kept}} rows. A reader that is further behind is notified that it has missed changes.
CREATE TRIGGER IF NOT EXISTS {{.Changes "_keep"}} AFTER INSERT ON {{.ChangesTable}} BEGIN
  DELETE FROM {{.ChangesTable}} WHERE seq <= NEW.seq - {{.Kept}};
END;

DROP TRIGGER IF EXISTS {{.Object "_insert"}};
-- An inserted row may replace one with a higher version, so its version is not recorded.
CREATE TRIGGER {{.Object "_insert"}} AFTER INSERT ON {{.TableName}} WHEN {{.Column "NEW"}} IS NOT NULL BEGIN
  INSERT INTO {{.ChangesTable}} (dataset, row_key) VALUES ('{{.Dataset.Name}}', {{.Key "NEW"}});
END;

DROP TRIGGER IF EXISTS {{.Object "_update"}};
-- Records both keys if the key itself was changed, and a version only if it has grown.
CREATE TRIGGER {{.Object "_update"}} AFTER UPDATE ON {{.TableName}} BEGIN
  INSERT INTO {{.ChangesTable}} (dataset, row_key, row_version)
  SELECT '{{.Dataset.Name}}', {{.Key "NEW"}},
    CASE WHEN {{.Key "NEW"}} IS {{.Key "OLD"}} AND {{.Version "NEW"}} > {{.Version "OLD"}} THEN {{.Version "NEW"}} ELSE 0 END
  WHERE {{.Column "NEW"}} IS NOT NULL;
  INSERT INTO {{.ChangesTable}} (dataset, row_key)
  SELECT '{{.Dataset.Name}}', {{.Key "OLD"}}
  WHERE {{.Key "NEW"}} IS NOT {{.Key "OLD"}} AND {{.Column "OLD"}} IS NOT NULL; {{- /* guard:sqlite-old-key-not-reported */}}
END;

DROP TRIGGER IF EXISTS {{.Object "_delete"}};
CREATE TRIGGER {{.Object "_delete"}} AFTER DELETE ON {{.TableName}} WHEN {{.Column "OLD"}} IS NOT NULL BEGIN
  INSERT INTO {{.ChangesTable}} (dataset, row_key) VALUES ('{{.Dataset.Name}}', {{.Key "OLD"}});
END;

-- Nothing has reported the changes from before the triggers existed.
INSERT INTO {{.Changes ""}} (dataset) VALUES ('{{.Dataset.Name}}');
COMMIT;
{{end}}

{{define "remove"}}-- Ringside: stops recording the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}.
BEGIN IMMEDIATE;
DROP TRIGGER IF EXISTS {{.Object "_insert"}};
DROP TRIGGER IF EXISTS {{.Object "_update"}};
DROP TRIGGER IF EXISTS {{.Object "_delete"}};
COMMIT;
-- Other datasets may record their changes in the same table. If none does:
--   DROP TABLE {{.Changes ""}};
{{end}}
