# Perl: hashes of arrays, sorted keys, regular expressions. use: words.pl MIB
use strict;
use warnings;
my $mib = shift // 64;
my (%by_word, %seen);
my $state = 12345;
sub draw { $state = ($state * 1103515245 + 12345) % 2147483648; return $state >> 8 }
for my $i (1 .. $mib * 4300) {
    my $word = join '', map { chr(97 + draw() % 26) } 1 .. 3;
    push @{ $by_word{$word} }, "line $i says $word " . ($i % 97);
    $seen{"$word$i"} = $i;
}
my ($sum, $hits) = (0, 0);
for my $word (sort keys %by_word) {
    $sum = ($sum * 31 + @{ $by_word{$word} }) % 1000000007;
    $hits += grep { /says [aeiou]..? \d*7$/ || /says $word 3/ } @{ $by_word{$word} };
}
my $total = 0;
$total += $seen{$_} for keys %seen;
print scalar(keys %by_word), " words, sum $sum, hits $hits, total $total\n";
