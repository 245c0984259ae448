# Databases with a rollback journal and with a log written ahead, several processes at once.
set -e
asks='pragma integrity_check; select count(*), sum(length(b)), sum(a) from t;'
if [ "$1" = check ]; then
    for mode in delete wal; do sqlite3 $mode "$asks" .sha3sum; done
    exit
fi
for mode in delete wal truncate; do
    sqlite3 $mode "pragma journal_mode = $mode; create table t(a integer primary key, b blob); create index i on t(b);" |
        sed "s/^/$mode: /"
    for part in 0 1 2 3; do
        sqlite3 -cmd '.timeout 60000' $mode "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2500)
            insert into t select i * 4 + $part, zeroblob(i % 700) || i from n;" &
    done
    wait
    for turn in 1 2 3 4 5 6 7 8; do
        sqlite3 $mode "update t set b = b || 'x$turn' where a % 9 = $turn; delete from t where a % 31 = $turn;"
    done
    sqlite3 $mode "begin; delete from t; rollback; vacuum; $asks"
done
