{{part install}}
-- Ringside: records the changes of {{Described}} as dataset {{Dataset}}.
-- Safe to run again.
-- Remove this before you drop or rename a column that it names, or the table of changes; otherwise the application's writes
-- fail.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS {{Changes}} (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  dataset TEXT NOT NULL,
  row_key TEXT, -- NULL: any row of the dataset may have changed
  row_version INTEGER NOT NULL DEFAULT 0, -- 0: unknown
  changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
-- Keeps the newest {{Kept}} rows. A reader that is further behind is notified that it has missed changes.
DROP TRIGGER IF EXISTS {{Changes _keep}};
CREATE TRIGGER {{Changes _keep}} AFTER INSERT ON {{ChangesTable}} BEGIN
  DELETE FROM {{ChangesTable}} WHERE seq <= NEW.seq - {{Kept}};
END;

DROP TRIGGER IF EXISTS {{Object _insert}};
-- An inserted row may replace one with a higher version, so its version is not recorded.
CREATE TRIGGER {{Object _insert}} AFTER INSERT ON {{TableName}} WHEN {{HasKey NEW}} BEGIN
  INSERT INTO {{ChangesTable}} (dataset, row_key) VALUES ('{{Dataset}}', {{Key NEW}});
END;

DROP TRIGGER IF EXISTS {{Object _update}};
-- Records both keys if the key itself was changed, and a version only if it has grown.
CREATE TRIGGER {{Object _update}} AFTER UPDATE ON {{TableName}} BEGIN
  INSERT INTO {{ChangesTable}} (dataset, row_key, row_version)
  SELECT '{{Dataset}}', {{Key NEW}},
    CASE WHEN {{Key NEW}} IS {{Key OLD}} AND {{Version NEW}} > {{Version OLD}} THEN {{Version NEW}} ELSE 0 END
  WHERE {{HasKey NEW}};
  INSERT INTO {{ChangesTable}} (dataset, row_key)
  SELECT '{{Dataset}}', {{Key OLD}}
  WHERE {{Key NEW}} IS NOT {{Key OLD}} AND {{HasKey OLD}}; {{/* guard:sqlite-old-key-not-reported */}}
END;

{{DropReplaced}}
{{Replaced}}
DROP TRIGGER IF EXISTS {{Object _delete}};
CREATE TRIGGER {{Object _delete}} AFTER DELETE ON {{TableName}} WHEN {{HasKey OLD}} BEGIN
  INSERT INTO {{ChangesTable}} (dataset, row_key) VALUES ('{{Dataset}}', {{Key OLD}});
END;

-- Nothing has reported the changes from before the triggers existed.
INSERT INTO {{Changes}} (dataset) VALUES ('{{Dataset}}');
COMMIT;
{{part remove}}
-- Ringside: stops recording the changes of {{Described}} as dataset {{Dataset}}.
BEGIN IMMEDIATE;
DROP TRIGGER IF EXISTS {{Object _insert}};
DROP TRIGGER IF EXISTS {{Object _update}};
DROP TRIGGER IF EXISTS {{Object _delete}};
{{DropReplaced}}
COMMIT;
-- Other datasets may record their changes in the same table. If none does:
--   DROP TABLE {{Changes}};
{{part drop replaced}}
DROP TRIGGER IF EXISTS {{Object _replace}};
DROP TRIGGER IF EXISTS {{Object _moved}};
{{part replaced}}
-- INSERT OR REPLACE and UPDATE OR REPLACE delete rows with the same value in another unique column, and run no delete trigger.
CREATE TRIGGER {{Object _replace}} BEFORE INSERT ON {{TableName}} BEGIN
{{ReplacedRows}}
END;
CREATE TRIGGER {{Object _moved}} BEFORE UPDATE ON {{TableName}} BEGIN
{{ReplacedRows}}
END;
{{part replaced row}}
  INSERT INTO {{ChangesTable}} (dataset, row_key)
  SELECT '{{Dataset}}', {{Key t}} FROM {{TableName}} AS t WHERE {{HasKey t}} {{/* guard:replaced-row-not-reported */}}
    AND {{Key t}} IS NOT {{Key NEW}}{{AndSameUnique}};
