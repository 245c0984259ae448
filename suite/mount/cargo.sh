# A small crate, built where it lies; what is built again after a change.
set -e
export CARGO_TARGET_DIR=target CARGO_NET_OFFLINE=true
if [ "$1" = check ]; then
    cd small
    ./target/debug/small
    cargo build --quiet
    ./target/debug/small
    exit
fi
cargo new --quiet --vcs none --name small small
cd small
for number in 1 2 3 4 5 6; do
    echo "pub fn f() -> u32 { $number }" >src/part$number.rs
    echo "mod part$number;" >>src/main.rs
done
sed -i 's/fn main.*/fn main() { println!("{}", part1::f() + part2::f() + part3::f() + part4::f() + part5::f() + part6::f());/' src/main.rs
sed -i '/Hello/d' src/main.rs
cargo build --quiet
./target/debug/small
cargo test --quiet | grep 'test result' | sed 's/finished.*//'
sleep 0.02
echo 'pub fn f() -> u32 { 100 }' >src/part3.rs
cargo build --quiet
./target/debug/small
