// Metrics: counters, gauges and histograms by name and labels, exposed in the Prometheus text format.
//
//   auto stored = metrics.counter("prism_pattern_claim_check_stored_total", "Payloads stored.", {"namespace"});
//   Counter& mine = stored.with({ns});   // once
//   mine.add();                          // hot path: one atomic addition
//
// Metrics is passed around, not a singleton. References stay valid as long as the Metrics lives. Everything is
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/measures.h"

namespace prism {

using LabelValues = std::vector<std::string>;

namespace detail {
struct FamilyState;
struct CallbackSlot;
}  // namespace detail

// A value that is asked for when the metrics are exposed; not any more once this is destroyed (the destructor waits for
// an exposition that is under way). May outlive the Metrics.
class MetricCallback {
 public:
  MetricCallback() noexcept = default;
  MetricCallback(MetricCallback&&) noexcept = default;
  MetricCallback& operator=(MetricCallback&& other) noexcept {
    if (this != &other) {
      reset();
      family_ = std::move(other.family_);
      slot_ = std::move(other.slot_);
    }
    return *this;
  }
  ~MetricCallback() { reset(); }
  void reset() noexcept;

 private:
  template <class>
  friend class MetricFamily;
  MetricCallback(std::shared_ptr<detail::FamilyState> family, std::shared_ptr<detail::CallbackSlot> slot) noexcept
      : family_(std::move(family)), slot_(std::move(slot)) {}
  std::shared_ptr<detail::FamilyState> family_;
  std::shared_ptr<detail::CallbackSlot> slot_;
};

// All series of one name. Cheap to copy; must not outlive the Metrics.
template <class T>
class MetricFamily {
 public:
  // One value for each label, in the order of declaration. Takes a lock: resolve once and keep the reference. When the
  // family has its most series already, further ones share the one whose label values are "_other".
  T& with(const LabelValues& values = {}) const;
  // The same for a series that is shown only as long as somebody holds it; two that ask for the same one share it.
  std::shared_ptr<T> held(const LabelValues& values) const;
  // Counters and gauges: the series' value is what `read` gives when asked; called on the exposing thread, must not
  // block nor touch the Metrics. Of several with the same label values the youngest counts, also before a series made
  // by with().
  [[nodiscard]] MetricCallback callback(LabelValues values, std::function<double()> read) const;
  // Shows one that somebody else keeps, and that lives longer than what this returns.
  [[nodiscard]] MetricCallback show(LabelValues values, const T& kept) const;

 private:
  friend class Metrics;
  explicit MetricFamily(std::shared_ptr<detail::FamilyState> state) noexcept : state_(std::move(state)) {}
  std::shared_ptr<detail::FamilyState> state_;
};

class Metrics {
 public:
  static constexpr std::size_t kMaxSeries = 10'000;  // of one family

  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Declares a family, or gives the one that was declared in the same way before. The same name declared differently,
  // or an illegal name, is a mistake of the program and ends it. Names and units as Prometheus wants them: base units
  // (seconds, bytes), counters end with _total.
  MetricFamily<Counter> counter(std::string name, std::string help, std::vector<std::string> labels = {},
                                std::size_t max_series = kMaxSeries);
  MetricFamily<Gauge> gauge(std::string name, std::string help, std::vector<std::string> labels = {},
                            std::size_t max_series = kMaxSeries);
  MetricFamily<Histogram> histogram(std::string name, std::string help, std::vector<std::string> labels = {},
                                    std::vector<double> bounds = seconds(), std::size_t max_series = kMaxSeries);

  // Shows a declared family under a second name too: the same measurements, the same labels. Does nothing the second
  // time.
  void alias(const std::string& name, std::string second_name, std::string help);

  static std::vector<double> seconds() { return Histogram::seconds(); }
  static std::vector<double> bytes();  // 256 B to 4 GiB, for sizes

  // Text exposition format 0.0.4: "text/plain; version=0.0.4". Families in order of their names.
  std::string expose() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The process's own: prism_build_info, prism_uptime_seconds, process_resident_memory_bytes, process_cpu_seconds_total,
// process_open_fds, process_max_fds, process_threads, process_start_time_seconds. As long as it lives.
class ProcessMetrics {
 public:
  explicit ProcessMetrics(Metrics& metrics);

 private:
  std::vector<MetricCallback> callbacks_;
};

}  // namespace prism
