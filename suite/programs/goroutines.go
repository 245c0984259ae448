// A Go program: goroutines that build maps, pass them through channels, and a garbage collector that walks all of it.
// use: goroutines MIB
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
)

type item struct {
	name   string
	values []int
	next   *item
}

func build(part, count int, out chan<- map[string]*item) {
	m := make(map[string]*item, 1024)
	var last *item
	for i := 0; i < count; i++ {
		it := &item{name: "item-" + strconv.Itoa(part) + "-" + strconv.Itoa(i*7919%count), values: make([]int, i%24), next: last}
		for k := range it.values {
			it.values[k] = k * i
		}
		m[it.name] = it
		if i%3 == 0 {
			last = it
		}
	}
	out <- m
}

func main() {
	mib := 64
	if len(os.Args) > 1 {
		mib, _ = strconv.Atoi(os.Args[1])
	}
	const parts = 8
	out := make(chan map[string]*item)
	for p := 0; p < parts; p++ {
		go build(p, mib*1900/parts, out)
	}
	var maps []map[string]*item
	for p := 0; p < parts; p++ {
		maps = append(maps, <-out)
	}
	runtime.GC()
	var mu sync.Mutex
	var wg sync.WaitGroup
	totals := map[string]int{}
	for _, m := range maps {
		wg.Add(1)
		go func(m map[string]*item) {
			defer wg.Done()
			sum := 0
			for name, it := range m {
				sum += len(name)
				for _, v := range it.values {
					sum += v
				}
				if it.next != nil {
					sum += len(it.next.name)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			totals[strconv.Itoa(len(m))+":"+strconv.Itoa(sum)] += 1
		}(m)
	}
	wg.Wait()
	runtime.GC()
	var lines []string
	for k, v := range totals {
		lines = append(lines, fmt.Sprint(k, "=", v))
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
