// What the outbox measures of a namespace.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "base/types.h"
#include "patterns/pattern_metrics.h"

namespace prism::outbox {

// Thread-safe.
class Counted {
 public:
  Counted();
  explicit Counted(const PatternMetrics& metrics);

  std::shared_ptr<Counter> inserted, published;
  std::shared_ptr<Gauge> pending, lag;  // of the whole table; set when it is looked at

  // From the commit of rows to the destination's acknowledgement.
  void took(const std::vector<Clock::duration>& latencies);
  // Shows the median of the last ones.
  void show_median();

 private:
  static constexpr std::size_t kRecent = 1000;  // the median is of so many
  std::shared_ptr<Gauge> median_;               // milliseconds
  std::shared_ptr<Histogram> latency_;
  std::mutex mutex_;
  std::vector<double> recent_;  // milliseconds; guarded by mutex_
  std::size_t next_ = 0;        // guarded by mutex_
};

}  // namespace prism::outbox
