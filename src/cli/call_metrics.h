// What is measured of requests, as Prometheus metrics.
#pragma once

#include <array>

#include "api/call_metrics.h"
#include "api/methods.h"
#include "telemetry/metrics.h"

namespace prism::cli {

class PrometheusCallMetrics final : public api::CallMetrics {
 public:
  explicit PrometheusCallMetrics(Metrics& metrics);  // which outlives it
  void started(const api::Method& method) noexcept override;
  void finished(const api::Method& method, grpc::StatusCode code, Clock::duration took) noexcept override;
  void published(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept override;
  void delivered(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept override;

 private:
  static constexpr std::size_t kCodes = 17;  // of gRPC
  struct Of {
    Gauge* in_flight = nullptr;
    Histogram* duration = nullptr;
    std::array<Counter*, kCodes> finished{};
    Counter* published = nullptr;
    Counter* published_bytes = nullptr;
    Counter* delivered = nullptr;
    Counter* delivered_bytes = nullptr;
  };
  Of& of(const api::Method& method) noexcept { return of_[method.index]; }
  std::array<Of, api::kMethods.size()> of_;
};

}  // namespace prism::cli
