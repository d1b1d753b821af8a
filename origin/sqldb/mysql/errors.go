package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// numbers are the errors of each class that do not concern the statement's keys and values alone (MySQL 8.0 Error Message
// Reference; MariaDB Error Code Reference).
var numbers = map[errclass.Class][]uint16{
	// Shutdown, killed, lost or unsynchronized sessions; a statement that the server no longer knows.
	errclass.Broken: {1047, 1053, 1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1189, 1190, 1243, 1927, 2006, 2013, 2055,
		3032, 3168, 3169, 4031},
	// Changed rows, deadlocks, rollbacks by a cluster, tables altered meanwhile, XA.
	errclass.Retry: {1020, 1213, 1297, 1412, 1613, 1614, 1615, 3058, 3101},
	// Lock wait timeout; time limit of MariaDB and of MySQL; NOWAIT.
	errclass.TimedOut: {1205, 1969, 3024, 3572},
	// Missing rights on databases, tables, columns, routines and views; 1419 is about triggers on a server with a binary log.
	errclass.Denied: {1044, 1142, 1143, 1227, 1370, 1410, 1419, 1449},
	// Read-only server, transaction, table or InnoDB; innodb_force_recovery. 1290 is read-only only with --read-only.
	errclass.ReadOnly: {1792, 1836, 1874, 1881},
	errclass.NoTable:  {1051, 1146, 1932},
	// The configured query does not fit the schema.
	errclass.Outdated: {1049, 1046, 1052, 1054, 1055, 1056, 1058, 1060, 1063, 1064, 1065, 1066, 1072, 1096, 1099, 1100, 1103, 1104, 1109, 1110,
		1111, 1115, 1128, 1136, 1140, 1149, 1166, 1176, 1193, 1222, 1235, 1241, 1247, 1248, 1253, 1273, 1288, 1305, 1318, 1327, 1347, 1348, 1356,
		1393, 1394, 1463, 1471, 1582, 1583, 1584, 1630},
	// Resources, files, accounts, refused connections, storage engines, clusters.
	errclass.Origin: {1003, 1004, 1005, 1009, 1014, 1015, 1016, 1017, 1018, 1019, 1021, 1023, 1024, 1025, 1026, 1027, 1028, 1029, 1030, 1033,
		1036, 1037, 1038, 1039, 1040, 1041, 1042, 1043, 1045, 1081, 1083, 1114, 1119, 1126, 1127, 1129, 1130, 1131, 1133, 1135, 1148, 1154,
		1155, 1156, 1157, 1180, 1181, 1192, 1203, 1206, 1223, 1226, 1251, 1275, 1296, 1429, 1430, 1436, 1461, 1467, 1524, 1637, 1820, 1862, 1873,
		3092, 3098, 3100, 3118, 3159, 3185, 3675, 3796, 3797, 3798, 3799, 3955},
	// Damaged tables and indexes.
	errclass.Row: {1032, 1034, 1035, 1194, 1195, 1712},
}

var classes = func() map[uint16]errclass.Class {
	m := map[uint16]errclass.Class{}
	for class, list := range numbers {
		for _, number := range list {
			m[number] = class
		}
	}
	return m
}()

// states are the classes of SQLSTATEs, for numbers that are not listed: those of other servers with this protocol.
var states = map[string]errclass.Class{
	"08": errclass.Broken, "28": errclass.Origin, "40": errclass.Retry, "42S02": errclass.NoTable, "42S22": errclass.Outdated,
	"53": errclass.Origin, "57": errclass.Origin, "70": errclass.Origin,
}

// Numbers whose meaning depends on the message or on the SQLSTATE.
const (
	optionPrevents = 1290 // an option such as --read-only prevents the statement
	signal         = 1644 // SIGNAL without a number of its own; 45000 is the SQLSTATE of those with one
	resignal       = 1645
	packetTooLarge = 1153 // has the SQLSTATE of a lost connection
	duplicateKey   = 1062
	noConversion   = 3988 // of a parameter to the character set of a column
)

// differentCollations are the errors about a comparison with a text that the column's character set does not have.
var differentCollations = []uint16{1267, 1270, 1271}

func (errorClasses) Class(err error) errclass.Class {
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	switch {
	case !ok && errors.Is(err, mysqldriver.ErrInvalidConn):
		return errclass.Broken
	case !ok && errors.Is(err, mysqldriver.ErrPktTooLarge):
		return errclass.Statement
	case !ok:
		return errclass.Origin
	}
	state := string(e.SQLState[:])
	switch {
	case isSignal(e) && strings.HasPrefix(state, "40"):
		return errclass.Retry
	case isSignal(e), e.Number == packetTooLarge:
		return errclass.Statement
	case e.Number == optionPrevents && readOnlyOption.MatchString(e.Message):
		return errclass.ReadOnly
	case e.Number == optionPrevents:
		return errclass.Origin
	}
	if class, ok := classes[e.Number]; ok {
		return class
	}
	for _, prefix := range []string{state, state[:2]} {
		if class, ok := states[prefix]; ok {
			return class
		}
	}
	return errclass.Statement
}

// isSignal reports whether a trigger has refused the statement (SIGNAL), with whichever SQLSTATE or number.
func isSignal(e *mysqldriver.MySQLError) bool {
	return e.Number == signal || e.Number == resignal || string(e.SQLState[:]) == "45000"
}

func (errorClasses) Code(err error) string {
	if errors.Is(err, mysqldriver.ErrPktTooLarge) {
		return "max_allowed_packet"
	}
	return "error " + strconv.Itoa(int(errorNumber(err)))
}

func errorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysqldriver.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

var (
	foreignKey     = regexp.MustCompile("FOREIGN KEY \\([`\"]([^)]*)[`\"]\\)")
	columnName     = regexp.MustCompile("(?i)(?:column|field) (?:[`'\"][^`'\"]*[`'\"]\\.)*[`'\"]([^`'\"]+)[`'\"]")
	constraintName = regexp.MustCompile("(?i)constraint [`'\"]([^`'\"]+)[`'\"]")
	readOnlyOption = regexp.MustCompile("(?i)read[-_ ]only")
	indexName      = regexp.MustCompile(`for key '(?:[^']*\.)?([^'.]+)'$`) // MySQL names the table too
)

// refusal turns an error about a value into one that names the column and contains no value of any row.
func refusal(err error, tx *rowwrite.Transaction) error {
	switch class := (errorClasses{}).Class(err); class {
	case errclass.Broken:
		return errclass.DropConn(err)
	case errclass.Retry:
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	case errclass.Statement:
	default:
		return err
	}
	column, reason := reasonOf(err)
	key := tx.Rows.Dataset.Key
	switch number := errorNumber(err); {
	case slices.Contains(differentCollations, number), number == noConversion && tx.Change.Delete:
		column = key[0] // a value is not compared with a column
	}
	if slices.Contains(key, column) {
		return fmt.Errorf("%w: %s", origin.ErrInvalidKey, reason)
	}
	return origin.InvalidValue(column, "%s", reason)
}

// reasonOf returns the column that an error of class errclass.Statement is about, if it names one, and what is wrong.
func reasonOf(err error) (column, reason string) {
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	if !ok {
		return "", "it is larger than max_allowed_packet"
	}
	if isSignal(e) {
		return "", "a trigger of the table refuses it: " + e.Message
	}
	column = find(columnName, e.Message)
	switch e.Number {
	case 1048, 1263, 1364:
		return column, "it must have a value: the column takes no null and has no default"
	case duplicateKey, 1586:
		return "", "another row has a value that unique index " + find(indexName, e.Message) + " allows once"
	case 1406, 1265:
		return column, "it is too long, or not among the values of the column"
	case 1264, 1690, 3669:
		return column, "it is out of range"
	case 1292, 1366, 1411, 1525, 3140, 4078:
		return column, "it is not of the column's type"
	case 1416, 3037:
		return column, "it is not a geometry"
	case 1267, 1270, 1271, noConversion:
		return column, "it is not of the column's type: it has a character that the column's character set does not have"
	case 1451, 1452:
		return find(foreignKey, e.Message), "a foreign key refuses it: the row that it refers to is missing, or others refer to it"
	case 1526, 1748, 1863:
		return "", "the table has no partition for it"
	case packetTooLarge:
		return "", "it is larger than max_allowed_packet"
	case 3819, 4025:
		return "", "constraint " + find(constraintName, e.Message) + " of the table refuses it"
	case 1906, 3105:
		return column, "the database generates it: leave it out"
	}
	return "", fmt.Sprintf("the database rejects it (error %d)", e.Number)
}

// find returns the first group of the last match.
func find(in *regexp.Regexp, message string) string {
	all := in.FindAllStringSubmatch(message, -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}

// isReadOnly reports whether the server accepts no writes, as a replica or a primary that was demoted.
func isReadOnly(ctx context.Context, conn *sql.Conn) (readOnly bool, err error) {
	row := conn.QueryRowContext(ctx, "SELECT @@global.read_only NOT IN ('0', 'OFF') OR @@global.innodb_read_only")
	return readOnly, row.Scan(&readOnly)
}
