#include "cli/call_metrics.h"

#include "base/error.h"

namespace prism::cli {
namespace {

constexpr std::size_t kCodes = 17;  // of gRPC

LabelValues labels_of(const std::string& namespace_name, const api::Method& method) {
  return {namespace_name, std::string(method.service), std::string(method.name)};
}

LabelValues with(LabelValues labels, std::string_view last) {
  labels.emplace_back(last);
  return labels;
}

}  // namespace

// Series are made when they are first needed, so that only what is used is shown.
class PrometheusCallMetrics::Calls final : public api::NamespaceCalls {
 public:
  Calls(const Families& families, std::string namespace_name)
      : families_(families), namespace_name_(std::move(namespace_name)) {}

  void finished(const api::Method& method, grpc::StatusCode code, std::string_view reason,
                Clock::duration took) noexcept override {
    Of& series = of(method);
    series.duration->observe(took);
    const auto given = static_cast<std::size_t>(code);
    const std::size_t index = given < kCodes ? given : static_cast<std::size_t>(grpc::StatusCode::UNKNOWN);
    Counter* counter = series.finished[index].load(std::memory_order_acquire);
    if (counter == nullptr) {
      counter = &families_.finished.with(
          with(labels_of(namespace_name_, method), index == 0 ? "OK" : to_string(static_cast<Code>(index))));
      series.finished[index].store(counter, std::memory_order_release);
    }
    counter->add();
    if (!reason.empty()) families_.errors.with(with(labels_of(namespace_name_, method), reason)).add();
  }
  void published(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept override {
    Of& series = of(method);
    series.messages->add(messages);
    series.bytes->add(bytes);
  }
  void delivered(const api::Method& method, std::size_t messages, std::size_t bytes) noexcept override {
    published(method, messages, bytes);  // a method does one or the other
  }
  void refused(const api::Method& method, std::string_view reason) noexcept override {
    families_.refused.with(with(labels_of(namespace_name_, method), reason)).add();
  }

 private:
  struct Of {
    std::once_flag once;
    Histogram* duration = nullptr;
    std::array<std::atomic<Counter*>, kCodes> finished{};
    Counter* messages = nullptr;
    Counter* bytes = nullptr;
  };
  Of& of(const api::Method& method) {
    Of& series = of_[method.index];
    std::call_once(series.once, [&] {
      const LabelValues labels = labels_of(namespace_name_, method);
      series.duration = &families_.duration.with(labels);
      if (method.name.starts_with("Publish")) {
        series.messages = &families_.published.with(labels);
        series.bytes = &families_.published_bytes.with(labels);
      } else if (method.name.starts_with("Subscribe")) {
        series.messages = &families_.delivered.with(labels);
        series.bytes = &families_.delivered_bytes.with(labels);
      }
    });
    return series;
  }

  const Families& families_;
  const std::string namespace_name_;
  std::array<Of, api::kMethods.size()> of_;
};

PrometheusCallMetrics::PrometheusCallMetrics(Metrics& metrics)
    : families_{
          .duration = metrics.histogram("prism_request_duration_seconds",
                                        "From the beginning of a call to its end; a stream is one call.",
                                        {"namespace", "service", "method"}),
          .finished = metrics.counter("prism_requests_total", "Calls that have ended, by gRPC status.",
                                      {"namespace", "service", "method", "code"}),
          .errors = metrics.counter("prism_request_errors_total",
                                    "Calls that have ended with an error, by reason (docs/reference/errors.md).",
                                    {"namespace", "service", "method", "reason"}),
          .published = metrics.counter("prism_messages_published_total", "Messages that clients published.",
                                       {"namespace", "service", "method"}),
          .published_bytes = metrics.counter("prism_published_bytes_total", "Bytes of payloads that clients published.",
                                             {"namespace", "service", "method"}),
          .delivered = metrics.counter("prism_messages_delivered_total", "Messages sent to clients, repeats included.",
                                       {"namespace", "service", "method"}),
          .delivered_bytes =
              metrics.counter("prism_delivered_bytes_total", "Bytes of payloads sent to clients, repeats included.",
                              {"namespace", "service", "method"}),
          .refused = metrics.counter("prism_messages_refused_total",
                                     "Messages of batches and streams that were answered with an error, by reason.",
                                     {"namespace", "service", "method", "reason"}),
      } {
  const auto in_flight =
      metrics.gauge("prism_requests_in_flight", "Calls under way, streams included.", {"service", "method"});
  for (const auto& method : api::kMethods)
    in_flight_[method.index] = &in_flight.with({std::string(method.service), std::string(method.name)});
}

api::NamespaceCalls& PrometheusCallMetrics::of(std::string_view namespace_name) noexcept {
  if (namespace_name.empty()) namespace_name = kNoNamespace;
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = calls_.find(namespace_name); found != calls_.end()) return *found->second;
  }
  const std::unique_lock lock(mutex_);
  auto& calls = calls_[std::string(namespace_name)];
  if (calls == nullptr) calls = std::make_unique<Calls>(families_, std::string(namespace_name));
  return *calls;
}

}  // namespace prism::cli
