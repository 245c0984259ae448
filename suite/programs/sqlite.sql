.print building
CREATE TABLE n AS WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < ROWS) SELECT i, i * 7919 % 1000003 AS k,
  'row ' || i || ' of ' || (i * 31 % 977) || ' ' || substr('the quick brown fox jumps over the lazy dog and then some more words follow', 1 + i % 30, 40) AS t FROM s;
CREATE INDEX by_k ON n(k);
CREATE INDEX by_t ON n(t);
SELECT count(*), sum(k), sum(length(t)) FROM n;
SELECT k % 10, count(*), min(t), max(t) FROM n GROUP BY 1 ORDER BY 1;
SELECT sum(a.i * b.k % 1009) FROM n a JOIN n b ON a.k = b.i WHERE a.i % 7 = 0;
UPDATE n SET t = t || '!' WHERE k % 5 = 0;
DELETE FROM n WHERE k % 11 = 0;
SELECT t FROM n WHERE t LIKE 'row 99%!' ORDER BY t LIMIT 20;
PRAGMA integrity_check;
SELECT count(*), sum(k), sum(length(t)) FROM n;
