"""Prints a large C++ file, heavy in templates and standard containers. use: templates.py UNITS"""
import sys

units = int(sys.argv[1])
print("#include <algorithm>\n#include <functional>\n#include <iostream>\n#include <map>\n#include <memory>\n#include <regex>\n#include <string>")
print("#include <tuple>\n#include <unordered_map>\n#include <variant>\n#include <vector>")
print("template <int N> struct Tag { static constexpr int value = N + Tag<N - 1>::value; };\ntemplate <> struct Tag<0> { static constexpr int value = 0; };")
for i in range(units):
    print(f"""namespace unit{i} {{
struct Item {{ int id; std::string name; std::vector<double> values; std::variant<int, std::string, Tag<{i % 50}>> v; }};
template <class T> auto fold(const std::vector<T>& all) {{
  std::map<std::string, std::vector<std::shared_ptr<T>>> by;
  for (const auto& x : all) by[x.name].push_back(std::make_shared<T>(x));
  std::unordered_map<int, std::tuple<std::string, double>> out;
  for (auto& [k, list] : by) {{
    std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) {{ return a->id < b->id; }});
    for (auto& p : list) out[p->id + {i}] = {{k, std::visit([&](auto&& y) -> double {{ (void)y; return Tag<{100 + i % 100}>::value; }}, p->v)}};
  }}
  return out;
}}
int run() {{ std::vector<Item> items({i % 9} + 1); std::function<int(int)> f = [&](int k) {{ return k ? (int)fold(items).size() : {i}; }}; return f({i % 3}); }}
}}""")
print("int main() { long s = 0;")
for i in range(units):
    print(f"s += unit{i}::run();")
print("std::cout << s << std::endl; return 0; }")
