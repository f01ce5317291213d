// What is measured of requests, as Prometheus metrics.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "api/call_metrics.h"
#include "api/methods.h"
#include "telemetry/metrics.h"

namespace prism::cli {

// Label sets are bounded: methods, codes and reasons are the program's, namespaces the configuration's.
class PrometheusCallMetrics final : public api::CallMetrics {
 public:
  static constexpr std::string_view kNoNamespace = "_none";  // the label of calls about no namespace

  explicit PrometheusCallMetrics(Metrics& metrics);  // which outlives it
  void started(const api::Method& method) noexcept override { in_flight_[method.index]->add(1); }
  void ended(const api::Method& method) noexcept override { in_flight_[method.index]->add(-1); }
  api::NamespaceCalls& of(std::string_view namespace_name) noexcept override;

 private:
  class Calls;
  struct Families {
    MetricFamily<Histogram> duration;
    MetricFamily<Counter> finished, errors, published, published_bytes, delivered, delivered_bytes, refused;
  };
  Families families_;
  std::array<Gauge*, api::kMethods.size()> in_flight_{};
  std::shared_mutex mutex_;
  std::map<std::string, std::unique_ptr<api::NamespaceCalls>, std::less<>> calls_;  // guarded by mutex_; grows only
};

}  // namespace prism::cli
