#include "patterns/outbox/counted.h"

#include <algorithm>

namespace prism::outbox {

Counted::Counted()
    : inserted(std::make_shared<Counter>()),
      published(std::make_shared<Counter>()),
      pending(std::make_shared<Gauge>()),
      lag(std::make_shared<Gauge>()),
      median_(std::make_shared<Gauge>()),
      latency_(std::make_shared<Histogram>(Histogram::seconds())) {}

Counted::Counted(const PatternMetrics& metrics)
    : inserted(metrics.counter("prism_pattern_outbox_inserted_total", "Rows inserted into the outbox by publishes.")),
      published(metrics.counter("prism_pattern_outbox_published_total",
                                "Rows of the outbox that this process published and the destination acknowledged.")),
      pending(metrics.gauge(
          "prism_pattern_outbox_pending_count",
          "Rows of the outbox that are not published yet. Every process shows the same.",
          {"prism_outbox_unpublished_count", "Rows waiting (RFC-009's name of prism_pattern_outbox_pending_count)."})),
      lag(metrics.gauge(
          "prism_pattern_outbox_lag_seconds",
          "Age of the oldest row that is not published yet; 0 where there is none. Every process shows the "
          "same.")),
      median_(metrics.gauge("prism_outbox_publish_latency_ms",
                            "Milliseconds from the commit of a row to the destination's acknowledgement: the median of "
                            "the last 1000 rows that this process published.")),
      latency_(metrics.histogram("prism_pattern_outbox_publish_latency_seconds",
                                 "From the commit of a row to the destination's acknowledgement.")) {}

void Counted::took(const std::vector<Clock::duration>& latencies) {
  const std::lock_guard lock(mutex_);
  for (const auto latency : latencies) {
    latency_->observe(latency);
    const double ms = std::chrono::duration<double, std::milli>(latency).count();
    if (recent_.size() < kRecent) {
      recent_.push_back(ms);
    } else {
      recent_[next_++ % kRecent] = ms;
    }
  }
}

void Counted::show_median() {
  std::vector<double> sample;
  {
    const std::lock_guard lock(mutex_);
    sample = recent_;
  }
  if (sample.empty()) return;
  const auto middle = sample.begin() + static_cast<std::ptrdiff_t>(sample.size() / 2);
  std::ranges::nth_element(sample, middle);
  median_->set(*middle);
}

}  // namespace prism::outbox
