// Traces for the simulator: who is asked for when, what each model weighs and what its load takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace hearth::bench {

struct SimModel {
  std::uint64_t bytes = 0;
  double load_seconds = 0;
  std::vector<double> uses = {};  // ascending, in seconds
  std::size_t next = 0;           // of uses: the first that has not been made
  double ready_at = 0;            // of its last load
};

struct Use {
  double at;
  std::size_t model;
  friend bool operator<(const Use& a, const Use& b) { return a.at < b.at; }
};

struct Trace {
  std::vector<SimModel> models;
  std::vector<Use> uses;  // of all of them, ascending

  std::uint64_t bytes() const;
};

// A day, made up in the shape of serverless platforms': 240 models of 8 MB to 9 GB, a third of them asked for at random,
// a third in bursts, a third by timetable; some much more often than others; a quarter of them compile for 1 to 8 seconds
// when they are loaded. A load takes what reading takes at 1.7 GB/s, and that. The same for the same seed.
Trace MadeUpDay(std::uint64_t seed);

// A header, then a line for each use: seconds,model,bytes,load_seconds; ascending in time, models being numbers from 0.
// Of a model's bytes and load_seconds its first line's count. INVALID_ARGUMENT names the line.
absl::StatusOr<Trace> ReadTrace(const std::string& file);
void PrintTrace(const Trace& trace);  // the same, to standard output

}  // namespace hearth::bench
