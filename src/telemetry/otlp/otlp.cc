// The module that is loaded when traces are exported: OpenTelemetry's OTLP exporters. It has no other place in the
// program, since its libraries cost a process that exports nothing 6 MB and 10 ms at the start.

#include <opentelemetry/exporters/otlp/otlp_grpc_exporter_factory.h>
#include <opentelemetry/exporters/otlp/otlp_grpc_exporter_options.h>
#include <opentelemetry/exporters/otlp/otlp_http_exporter_factory.h>
#include <opentelemetry/exporters/otlp/otlp_http_exporter_options.h>
#include <opentelemetry/sdk/common/global_log_handler.h>
#include <opentelemetry/sdk/instrumentationscope/instrumentation_scope.h>
#include <opentelemetry/sdk/resource/resource.h>
#include <opentelemetry/sdk/trace/exporter.h>
#include <opentelemetry/sdk/trace/recordable.h>

#include <mutex>

#include "telemetry/exporter.h"

namespace prism::trace {
namespace {

namespace otel = opentelemetry;
namespace otlp = opentelemetry::exporter::otlp;

// The exporters only log why something failed; the first line of an attempt says it best.
class FirstProblem final : public otel::sdk::common::internal_log::LogHandler {
 public:
  void Handle(otel::sdk::common::internal_log::LogLevel level, const char* /*file*/, int /*line*/, const char* text,
              const otel::sdk::common::AttributeMap& /*attributes*/) noexcept override {
    if (level != otel::sdk::common::internal_log::LogLevel::Error) return;
    const std::lock_guard lock(mutex_);
    if (text_.empty()) text_ = text != nullptr && *text != 0 ? text : "the receiver does not take them";
  }
  std::string take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(text_, {});
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

otel::trace::SpanId span_id(const std::array<std::byte, 8>& id) {
  return otel::trace::SpanId(
      otel::nostd::span<const std::uint8_t, 8>(reinterpret_cast<const std::uint8_t*>(id.data()), id.size()));
}

otel::trace::SpanContext identity(const TraceContext& context, bool remote) {
  const otel::trace::TraceId trace_id(otel::nostd::span<const std::uint8_t, 16>(
      reinterpret_cast<const std::uint8_t*>(context.trace_id.data()), context.trace_id.size()));
  auto state = context.tracestate.empty() ? otel::trace::TraceState::GetDefault()
                                          : otel::trace::TraceState::FromHeader(context.tracestate);
  return {trace_id, span_id(context.span_id), otel::trace::TraceFlags(context.flags), remote, std::move(state)};
}

otel::trace::SpanKind kind_of(Kind kind) {
  switch (kind) {
    case Kind::internal:
      return otel::trace::SpanKind::kInternal;
    case Kind::server:
      return otel::trace::SpanKind::kServer;
    case Kind::client:
      return otel::trace::SpanKind::kClient;
    case Kind::producer:
      return otel::trace::SpanKind::kProducer;
    case Kind::consumer:
      return otel::trace::SpanKind::kConsumer;
  }
  return otel::trace::SpanKind::kInternal;
}

std::unique_ptr<otel::sdk::trace::SpanExporter> make_exporter(const Receiver& receiver) {
  if (receiver.protocol == telemetry::Protocol::http) {
    otlp::OtlpHttpExporterOptions options;
    options.url = receiver.url;
    options.content_type = otlp::HttpRequestContentType::kBinary;
    options.timeout = receiver.timeout;
    options.http_headers.clear();
    for (const auto& [name, value] : receiver.headers) options.http_headers.emplace(name, value);
    options.ssl_ca_cert_path = receiver.certificate;
    options.compression = receiver.gzip ? "gzip" : "none";
    options.console_debug = false;
    options.retry_policy_max_attempts = 0;  // the Batcher repeats
    return otlp::OtlpHttpExporterFactory::Create(options);
  }
  otlp::OtlpGrpcExporterOptions options;
  options.endpoint = receiver.url;
  options.use_ssl_credentials = receiver.url.starts_with("https://");
  options.ssl_credentials_cacert_path = receiver.certificate;
  options.timeout = receiver.timeout;
  options.metadata.clear();
  for (const auto& [name, value] : receiver.headers) options.metadata.emplace(name, value);
  options.compression = receiver.gzip ? "gzip" : "none";
  options.retry_policy_max_attempts = 0;
  return otlp::OtlpGrpcExporterFactory::Create(options);
}

class OtlpExporter final : public Exporter {
 public:
  explicit OtlpExporter(Receiver receiver)
      : receiver_(std::move(receiver)), resource_(make_resource(receiver_)), exporter_(make_exporter(receiver_)) {
    otel::sdk::common::internal_log::GlobalLogHandler::SetLogHandler(
        otel::nostd::shared_ptr<otel::sdk::common::internal_log::LogHandler>(problem_));
  }

  std::string send(const std::vector<Finished>& spans) noexcept override {
    // After a failure with a new connection: gRPC would wait up to two minutes before it tries the old one again.
    if (exporter_ == nullptr) exporter_ = make_exporter(receiver_);
    std::vector<std::unique_ptr<otel::sdk::trace::Recordable>> records;
    records.reserve(spans.size());
    for (const auto& span : spans) {
      records.push_back(exporter_->MakeRecordable());
      fill(span, *records.back());
    }
    problem_->take();
    const auto result = exporter_->Export({records.data(), records.size()});
    // The exporter over HTTP says success also where nothing was sent: there the error that it logged is the truth.
    std::string why = problem_->take();
    if (result == otel::sdk::common::ExportResult::kSuccess && why.empty()) return {};
    exporter_.reset();
    return why.empty() ? "the receiver does not take them" : why;
  }

 private:
  static otel::sdk::resource::Resource make_resource(const Receiver& receiver) {
    otel::sdk::resource::ResourceAttributes attributes;
    for (const auto& [name, value] : receiver.resource) attributes[name] = value;
    return otel::sdk::resource::Resource::Create(attributes);
  }

  void fill(const Finished& span, otel::sdk::trace::Recordable& out) {
    out.SetResource(resource_);
    out.SetInstrumentationScope(*scope_);
    out.SetIdentity(identity(span.context, false), span_id(span.parent));
    out.SetTraceFlags(otel::trace::TraceFlags(span.context.flags));
    out.SetName(span.name);
    out.SetSpanKind(kind_of(span.kind));
    out.SetStartTime(otel::common::SystemTimestamp(span.begun));
    out.SetDuration(std::chrono::duration_cast<std::chrono::nanoseconds>(span.ended - span.begun));
    for (const auto& [key, value] : span.attributes) {
      const otel::nostd::string_view name(key.data(), key.size());
      std::visit(
          [&](const auto& v) {
            if constexpr (std::same_as<std::remove_cvref_t<decltype(v)>, std::string>) {
              out.SetAttribute(name, otel::nostd::string_view(v));
            } else {
              out.SetAttribute(name, v);
            }
          },
          value);
    }
    for (const auto& link : span.links) out.AddLink(identity(link, true));
    if (span.failed) out.SetStatus(otel::trace::StatusCode::kError, span.error);
  }

  Receiver receiver_;
  otel::sdk::resource::Resource resource_;
  std::unique_ptr<otel::sdk::trace::SpanExporter> exporter_;
  std::unique_ptr<otel::sdk::instrumentationscope::InstrumentationScope> scope_ =
      otel::sdk::instrumentationscope::InstrumentationScope::Create("prism", PRISM_VERSION);
  FirstProblem* problem_ = new FirstProblem();  // shared with the library's global handler
};

}  // namespace
}  // namespace prism::trace

extern "C" {

__attribute__((visibility("default"))) extern const char* const prism_otlp_version;
const char* const prism_otlp_version = PRISM_VERSION;

__attribute__((visibility("default"))) prism::trace::Exporter* prism_otlp_make(const prism::trace::Receiver& receiver,
                                                                               std::string& error) {
  try {
    return new prism::trace::OtlpExporter(receiver);
  } catch (const std::exception& problem) {
    error = problem.what();
    return nullptr;
  }
}
}
