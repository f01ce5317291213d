// The runtime's measurements: how long loops and pools let work wait, stalls, the byte budget.
#pragma once

#include <vector>

#include "runtime/loop.h"
#include "telemetry/metrics.h"

namespace prism {

// As long as it lives; the runtime outlives it.
class RuntimeMetrics {
 public:
  RuntimeMetrics(Metrics& metrics, Runtime& runtime);

 private:
  std::vector<MetricCallback> callbacks_;
};

}  // namespace prism
