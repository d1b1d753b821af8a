{{part install}}
-- Ringside: records the changes of {{Described}} as dataset {{Dataset}}.
-- Safe to run again. For MySQL 8 and MariaDB 10.3. Needs the rights CREATE, INSERT and TRIGGER. The triggers act with the
-- rights of the account that runs this, which must continue to exist; writers of the table need no rights on the changes.
-- On a server with a binary log, CREATE TRIGGER fails with error 1419 unless log_bin_trust_function_creators is 1 or the account has
-- SUPER (in MySQL 8.0 SET_USER_ID, from 8.2 SET_ANY_DEFINER):
--   SET GLOBAL log_bin_trust_function_creators = 1;
-- Remove this before you drop or rename a column that it names; otherwise the application's writes fail.
-- Triggers do not run for TRUNCATE, for ALTER TABLE … TRUNCATE, DROP or EXCHANGE PARTITION, nor for ON DELETE CASCADE and the
-- like: invalidate the dataset after these.
{{Warnings}}DELIMITER //
-- A trigger keeps the sql_mode of the session that creates it.
SET @ringside_sql_mode = @@SESSION.sql_mode, SESSION sql_mode = ''
//
CREATE TABLE IF NOT EXISTS {{Changes}} (
  seq bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
  dataset varchar(63) NOT NULL,
  row_key longblob, -- UTF-8; NULL: any row of the dataset may have changed
  row_version bigint NOT NULL DEFAULT 0, -- 0: unknown
  changed_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) ENGINE = InnoDB CHARACTER SET utf8mb4
//
DROP TRIGGER IF EXISTS {{Object _insert}}
//
CREATE TRIGGER {{Object _insert}} AFTER INSERT ON {{Table}} FOR EACH ROW
BEGIN
  {{MissingTable}}
  IF {{HasKey NEW}} THEN
    INSERT INTO {{Changes}} (dataset, row_key, row_version)
    VALUES ('{{Dataset}}', {{Key NEW}}, LEAST({{Version NEW}}, 9223372036854775807));
  END IF;
END
//
DROP TRIGGER IF EXISTS {{Object _update}}
//
-- Records both keys if the key itself was changed, and a version only if it has grown.
CREATE TRIGGER {{Object _update}} AFTER UPDATE ON {{Table}} FOR EACH ROW
BEGIN
  DECLARE moved boolean DEFAULT NOT (CAST({{Key NEW}} AS BINARY) <=> CAST({{Key OLD}} AS BINARY));
  {{MissingTable}}
  IF {{HasKey NEW}} THEN
    INSERT INTO {{Changes}} (dataset, row_key, row_version)
    VALUES ('{{Dataset}}', {{Key NEW}},
      IF(NOT moved AND {{Version NEW}} > {{Version OLD}}, LEAST({{Version NEW}}, 9223372036854775807), 0)); {{/* guard:mysql-unchanged-version-reported */}}
  END IF;
  IF moved AND {{HasKey OLD}} THEN
    INSERT INTO {{Changes}} (dataset, row_key) VALUES ('{{Dataset}}', {{Key OLD}});
  END IF;
END
//
DROP TRIGGER IF EXISTS {{Object _delete}}
//
CREATE TRIGGER {{Object _delete}} AFTER DELETE ON {{Table}} FOR EACH ROW
BEGIN
  {{MissingTable}}
  IF {{HasKey OLD}} THEN
    INSERT INTO {{Changes}} (dataset, row_key) VALUES ('{{Dataset}}', {{Key OLD}});
  END IF;
END
//
-- Nothing has reported the changes from before the triggers existed.
INSERT INTO {{Changes}} (dataset) VALUES ('{{Dataset}}')
//
SET SESSION sql_mode = @ringside_sql_mode
//
DELIMITER ;
-- The account that Ringside connects with must be able to read it:
--   GRANT SELECT, DELETE ON {{Changes}} TO ...;
-- Ringside deletes old rows, if it may (DELETE). Otherwise delete them regularly, every minute or every hour (cron, CREATE EVENT). Keep them for longer than the longest
-- transaction, and than the longest time without a running Ringside after which it must not miss changes:
--   DELETE FROM {{Changes}} WHERE seq < (SELECT last FROM
--     (SELECT MAX(seq) AS last FROM {{Changes}} WHERE changed_at < NOW() - INTERVAL 1 HOUR) AS old);
{{part remove}}
-- Ringside: stops recording the changes of {{Described}} as dataset {{Dataset}}.
DELIMITER //
DROP TRIGGER IF EXISTS {{Object _insert}}
//
DROP TRIGGER IF EXISTS {{Object _update}}
//
DROP TRIGGER IF EXISTS {{Object _delete}}
//
DELIMITER ;
-- Other datasets may record their changes in the same table. If none does:
--   DROP TABLE {{Changes}};
{{part missing table}}
DECLARE CONTINUE HANDLER FOR 1146 BEGIN END; -- no such table: the write must not fail {{/* guard:mariadb-dropped-changes-table-fails-writes */}}
