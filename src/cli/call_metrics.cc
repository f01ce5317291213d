#include "cli/call_metrics.h"

#include "base/error.h"

namespace prism::cli {

PrometheusCallMetrics::PrometheusCallMetrics(Metrics& metrics) {
  const auto in_flight =
      metrics.gauge("prism_requests_in_flight", "Calls under way, streams included.", {"service", "method"});
  const auto duration = metrics.histogram("prism_request_duration_seconds", "From the begin of a call to its end.",
                                          {"service", "method"});
  const auto finished =
      metrics.counter("prism_requests_total", "Calls that have ended, by gRPC status.", {"service", "method", "code"});
  const auto published =
      metrics.counter("prism_messages_published_total", "Messages published by clients.", {"service", "method"});
  const auto published_bytes =
      metrics.counter("prism_published_bytes_total", "Bytes of their payloads.", {"service", "method"});
  const auto delivered = metrics.counter("prism_messages_delivered_total",
                                         "Messages delivered to clients, repeats included.", {"service", "method"});
  const auto delivered_bytes =
      metrics.counter("prism_delivered_bytes_total", "Bytes of their payloads.", {"service", "method"});
  for (const auto& method : api::kMethods) {
    const LabelValues labels{std::string(method.service), std::string(method.name)};
    Of& series = of(method);
    series.in_flight = &in_flight.with(labels);
    series.duration = &duration.with(labels);
    for (std::size_t code = 0; code < kCodes; ++code) {
      auto with_code = labels;
      with_code.emplace_back(code == 0 ? "OK" : to_string(static_cast<Code>(code)));
      series.finished[code] = &finished.with(with_code);
    }
    const bool publishes = method.name.starts_with("Publish");
    const bool subscribes = method.name.starts_with("Subscribe");
    if (publishes) {
      series.published = &published.with(labels);
      series.published_bytes = &published_bytes.with(labels);
    }
    if (subscribes) {
      series.delivered = &delivered.with(labels);
      series.delivered_bytes = &delivered_bytes.with(labels);
    }
  }
}

void PrometheusCallMetrics::started(const api::Method& method) noexcept { of(method).in_flight->add(1); }

void PrometheusCallMetrics::finished(const api::Method& method, grpc::StatusCode code, Clock::duration took) noexcept {
  Of& series = of(method);
  series.in_flight->add(-1);
  series.duration->observe(took);
  const auto index = static_cast<std::size_t>(code);
  series.finished[index < kCodes ? index : static_cast<std::size_t>(grpc::StatusCode::UNKNOWN)]->add();
}

void PrometheusCallMetrics::published(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept {
  Of& series = of(method);
  if (series.published == nullptr) return;
  series.published->add(messages);
  series.published_bytes->add(bytes);
}

void PrometheusCallMetrics::delivered(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept {
  Of& series = of(method);
  if (series.delivered == nullptr) return;
  series.delivered->add(messages);
  series.delivered_bytes->add(bytes);
}

}  // namespace prism::cli
