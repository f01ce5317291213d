// What a namespace's chain measures of itself: decorators around each step and around the whole.
//
// A step's own time is the time from its call to its answer without that of the step inside of it, waiting for its
// backends included; so the own times of all steps add up to the time of the chain.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "patterns/pattern.h"
#include "telemetry/metrics.h"

namespace prism {

class ChainMetrics {
 public:
  // The metrics outlive every chain. `patterns`: observability.pattern_metrics.
  ChainMetrics(Metrics& metrics, std::string namespace_name, bool patterns);

  // Around the step at `level`, counted from the inside: 0 is the log at the end, which has no name.
  std::unique_ptr<Publisher> step(std::unique_ptr<Publisher> step, std::size_t level, std::string_view pattern) const;
  // Around all of it, `steps` of which are measured (the log included): publishes, subscriptions, deliveries and what
  // becomes of them.
  Ports chain(Ports ports, std::size_t steps) const;

 private:
  Metrics& metrics_;
  const std::string namespace_name_;
  const bool patterns_;
};

}  // namespace prism
