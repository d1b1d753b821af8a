{{define "install"}}-- Ringside: records the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}.
-- Safe to run again.
-- Before a column that is named here is dropped or renamed, remove this, or the application's writes fail.
-- The same is true of the table of changes: SQLite has no trigger that goes on without a table that it names.
-- SQLite does not tell triggers of the row that INSERT OR REPLACE replaces, unless the writer has set
-- PRAGMA recursive_triggers: one of another key, equal in another unique column, is then missed.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS {{.Changes ""}} (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  dataset TEXT NOT NULL,
  row_key TEXT, -- NULL: any row of the dataset may have changed
  row_version INTEGER NOT NULL DEFAULT 0, -- 0: not known
  changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
-- The newest {{.Kept}} rows are kept. A reader that comes later hears that it missed something.
CREATE TRIGGER IF NOT EXISTS {{.Changes "_keep"}} AFTER INSERT ON {{.ChangesTable}} BEGIN
  DELETE FROM {{.ChangesTable}} WHERE seq <= NEW.seq - {{.Kept}};
END;

DROP TRIGGER IF EXISTS {{.Object "_insert"}};
-- An inserted row may replace one of a higher version: its own is not told.
CREATE TRIGGER {{.Object "_insert"}} AFTER INSERT ON {{.TableName}} WHEN {{.Column "NEW"}} IS NOT NULL BEGIN
  INSERT INTO {{.ChangesTable}} (dataset, row_key) VALUES ('{{.Dataset.Name}}', {{.Key "NEW"}});
END;

DROP TRIGGER IF EXISTS {{.Object "_update"}};
-- Both keys, where the key itself was changed. A version is told only if it has grown.
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

-- What was changed before the triggers were there, nobody has told of.
INSERT INTO {{.Changes ""}} (dataset) VALUES ('{{.Dataset.Name}}');
COMMIT;
{{end}}

{{define "remove"}}-- Ringside: no longer records the changes of {{printf "%q" .Dataset.Table}} as dataset {{.Dataset.Name}}.
BEGIN IMMEDIATE;
DROP TRIGGER IF EXISTS {{.Object "_insert"}};
DROP TRIGGER IF EXISTS {{.Object "_update"}};
DROP TRIGGER IF EXISTS {{.Object "_delete"}};
COMMIT;
-- Other datasets may record their changes in the same table. When none does any more:
--   DROP TABLE {{.Changes ""}};
{{end}}
