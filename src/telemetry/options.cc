#include "telemetry/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace prism::telemetry {
namespace {

using config::Diagnostics;
using config::Node;

// A share: 0.01 or 1%.
std::optional<double> parse_share(std::string_view text) {
  double scale = 1;
  if (text.ends_with('%')) {
    text.remove_suffix(1);
    scale = 100;
  }
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  value /= scale;
  if (value < 0 || value > 1) return std::nullopt;
  return value;
}

struct Share {
  config::TypeInfo info() const {
    config::TypeInfo out;
    out.form = config::TypeInfo::Form::string;
    out.name = "share";
    out.min = "0";
    out.max = "1";
    return out;
  }
  bool parse(const Node& node, double& out, Diagnostics& diagnostics) const {
    if (node.broken()) return false;
    const auto value = node.is_scalar() ? parse_share(node.text()) : std::nullopt;
    if (!value) {
      diagnostics.error(node, "INVALID_VALUE", node.display() + " is no share", "write a number from 0 to 1, or 1%");
      return false;
    }
    out = *value;
    return true;
  }
};

constexpr std::string_view kUrl = R"(https?://[^\s/@]+(/\S*)?)";

const config::Schema<TraceSpec>& trace_schema() {
  static const auto schema =
      config::Schema<TraceSpec>("traces", "Export of traces in OpenTelemetry's protocol (OTLP).")
          .field(&TraceSpec::endpoint, "endpoint",
                 config::Text{.pattern = std::string(kUrl), .expects = "a URL http://host:port or https://host:port"},
                 "Where spans are sent. Without it nothing is recorded. The variables OTEL_EXPORTER_OTLP_* have "
                 "precedence.")
          .example("http://otel-collector:4317")
          .field(&TraceSpec::protocol, "protocol",
                 config::Enum<Protocol>{{{"grpc", Protocol::grpc}, {"http/protobuf", Protocol::http}}},
                 "OTLP over gRPC or over HTTP. Without it: http/protobuf where the endpoint's port is 4318, else grpc.")
          .field(&TraceSpec::sampling, "sampling", Share{},
                 "The share of the traces beginning here that are recorded: 0.01 or 1%.")
          .default_("1")
          .field(&TraceSpec::sampler, "sampler",
                 config::Enum<trace::Sampling>{
                     {{"parent_based", trace::Sampling::parent_based}, {"ratio", trace::Sampling::ratio}}},
                 "parent_based: a caller that sends a traceparent decides for its requests. ratio: its decision does "
                 "not count.")
          .default_("parent_based")
          .field(&TraceSpec::headers, "headers", config::MapOf{config::SecretText{}},
                 "Sent with each export, for the receiver's authentication.")
          .example("{authorization: '${env:OTLP_TOKEN}'}")
          .field(&TraceSpec::certificate, "certificate", config::Text{},
                 "File with the certificates (PEM) that the receiver's is checked by. Without it: the system's.")
          .field(&TraceSpec::compression, "compression",
                 config::Enum<Compression>{{{"none", Compression::none}, {"gzip", Compression::gzip}}},
                 "Compression of an export.")
          .default_("none")
          .field(&TraceSpec::timeout, "timeout", config::Duration{.min = std::chrono::milliseconds(1)},
                 "How long one export may take.")
          .default_("10s")
          .field(&TraceSpec::delay, "delay", config::Duration{.min = std::chrono::milliseconds(1)},
                 "How long a span waits, at most, for others to be sent with.")
          .default_("1s")
          .field(&TraceSpec::queue, "queue", config::Int{.min = 1, .max = 1'000'000},
                 "Spans that may wait to be sent; further ones are dropped and counted.")
          .default_("8192")
          .field(&TraceSpec::batch, "batch", config::Int{.min = 1, .max = 100'000}, "Spans of one export, at most.")
          .default_("512");
  return schema;
}

const config::Schema<LogSpec>& log_schema() {
  static const auto schema =
      config::Schema<LogSpec>("logs", "What the process logs, to its standard error.")
          .field(&LogSpec::level, "level",
                 config::Enum<log::Level>{{{"trace", log::Level::trace},
                                           {"debug", log::Level::debug},
                                           {"info", log::Level::info},
                                           {"warn", log::Level::warn},
                                           {"error", log::Level::error},
                                           {"off", log::Level::off}}},
                 "The least level that is logged; info unless --log-level says otherwise.")
          .field(&LogSpec::format, "format",
                 config::Enum<log::Format>{
                     {{"json", log::Format::json}, {"pretty", log::Format::pretty}, {"auto", log::Format::automatic}}},
                 "json, pretty, or auto: pretty on a terminal, else json; auto unless --log-format says otherwise.")
          .field(&LogSpec::repeat_after, "repeat_after", config::Duration{},
                 "A warning or error that comes again within this time is counted and not written. 0: all are written.")
          .default_("10s");
  return schema;
}

std::string folded(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

// Percent-decoding of values in OTEL_*_HEADERS and OTEL_RESOURCE_ATTRIBUTES (W3C Baggage's octets).
std::optional<std::string> unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto [end, problem] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (problem != std::errc() || end != text.data() + i + 3) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// "a=1,b=2"
std::optional<std::map<std::string, std::string>> parse_pairs(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto pair = trimmed(text.substr(0, comma));
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    if (pair.empty()) continue;
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos || trimmed(pair.substr(0, equals)).empty()) return std::nullopt;
    auto value = unescaped(trimmed(pair.substr(equals + 1)));
    if (!value) return std::nullopt;
    out.insert_or_assign(std::string(trimmed(pair.substr(0, equals))), std::move(*value));
  }
  return out;
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_url(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    const auto host = text.substr(scheme.size(), text.find('/', scheme.size()) - scheme.size());
    return !host.empty() && host.find('@') == std::string_view::npos;  // a password would stand in log lines
  }
  return false;
}

// The part after scheme, host and port; empty or beginning with '/'.
std::string_view path_of(std::string_view url) {
  const auto begin = url.find("://");
  const auto slash = url.find('/', begin == std::string_view::npos ? 0 : begin + 3);
  return slash == std::string_view::npos ? std::string_view() : url.substr(slash);
}

// Reads variables one after the other and keeps what is wrong with them.
class Environment {
 public:
  explicit Environment(const std::function<const char*(const char*)>& get) : get_(get) {}

  // The empty value means unset, as OpenTelemetry defines.
  std::optional<std::string_view> value(const char* name) {
    const char* const text = get_(name);
    if (text == nullptr || *text == '\0') return std::nullopt;
    name_ = name;
    return text;
  }
  // The first of those that are set: the more special one comes first.
  std::optional<std::string_view> value(const char* special, const char* general) {
    const auto found = value(special);
    return found ? found : value(general);
  }
  void wrong(std::string_view expected) { problems_.emplace_back(name_, "it must be " + std::string(expected)); }
  std::vector<std::pair<std::string, std::string>> problems() && { return std::move(problems_); }

 private:
  const std::function<const char*(const char*)>& get_;
  std::string name_;  // last read; values may be secrets and are not shown
  std::vector<std::pair<std::string, std::string>> problems_;
};

void read_endpoint(Environment& env, TraceSpec& traces) {
  if (const auto url = env.value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
    if (!is_url(*url)) return env.wrong("a URL http://host:port or https://host:port");
    traces.endpoint = *url;
  } else if (const auto base = env.value("OTEL_EXPORTER_OTLP_ENDPOINT")) {
    if (!is_url(*base)) return env.wrong("a URL http://host:port or https://host:port");
    traces.endpoint = *base;
    // The general variable is a base below which each signal has its own path.
    const auto path = path_of(*base);
    if (!path.empty() && path != "/") *traces.endpoint += base->ends_with('/') ? "v1/traces" : "/v1/traces";
  }
}

void read_sampler(Environment& env, TraceSpec& traces) {
  double ratio = 1;
  const bool given = env.value("OTEL_TRACES_SAMPLER").has_value();
  if (const auto text = env.value("OTEL_TRACES_SAMPLER_ARG")) {
    if (const auto share = parse_share(*text)) {
      ratio = *share;
    } else if (given) {
      return env.wrong("a number from 0 to 1");
    }
  }
  const auto sampler = env.value("OTEL_TRACES_SAMPLER");
  if (!sampler) return;
  const bool parent_based = sampler->starts_with("parentbased_");
  const std::string_view kind = parent_based ? sampler->substr(std::string_view("parentbased_").size()) : *sampler;
  if (kind == "always_on") {
    traces.sampling = 1;
  } else if (kind == "always_off") {
    traces.sampling = 0;
  } else if (kind == "traceidratio") {
    traces.sampling = ratio;
  } else {
    return env.wrong("always_on, always_off, traceidratio, or one of these after parentbased_");
  }
  traces.sampler = parent_based ? trace::Sampling::parent_based : trace::Sampling::ratio;
}

template <class T, class Member>
void read_number(Environment& env, const char* name, T least, T most, Member& out) {
  const auto text = env.value(name);
  if (!text) return;
  const auto number = parse_number<T>(*text);
  if (!number || *number < least || *number > most) {
    return env.wrong("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  out = Member(*number);
}

}  // namespace

Protocol TraceSpec::chosen_protocol() const {
  if (protocol) return *protocol;
  const std::string_view url = endpoint ? std::string_view(*endpoint) : std::string_view();
  return url.substr(0, url.size() - path_of(url).size()).ends_with(":4318") ? Protocol::http : Protocol::grpc;
}

std::string TraceSpec::url() const {
  if (!endpoint) return {};
  const auto path = path_of(*endpoint);
  if (chosen_protocol() == Protocol::grpc) return endpoint->substr(0, endpoint->size() - path.size());
  if (path.empty()) return *endpoint + "/v1/traces";
  return path == "/" ? *endpoint + "v1/traces" : *endpoint;
}

const config::Schema<Spec>& schema() {
  static const auto schema =
      config::Schema<Spec>("telemetry", "What this process tells of itself: traces and logs.")
          .field(&Spec::service_name, "service_name", config::Text{},
                 "Name of the service in traces; prism unless OTEL_SERVICE_NAME says otherwise.")
          .field(&Spec::resource, "resource", config::MapOf{config::Text{}},
                 "Further attributes of this process in traces.")
          .example("{deployment.environment.name: production}")
          .field(
              &Spec::metrics, "metrics", config::Bool{},
              "Measure requests, backends, patterns and jobs. With false only the process itself is measured: to see "
              "what measuring costs.")
          .default_("true")
          .field(&Spec::traces, "traces", config::Nested{trace_schema()}, "Export of traces.")
          .field(&Spec::logs, "logs", config::Nested{log_schema()}, "Logs.");
  return schema;
}

std::vector<std::pair<std::string, std::string>> apply_environment(
    Spec& spec, const std::function<const char*(const char* name)>& get) {
  Environment env(get);
  TraceSpec& traces = spec.traces;
  if (const auto attributes = env.value("OTEL_RESOURCE_ATTRIBUTES")) {
    if (auto pairs = parse_pairs(*attributes)) {
      for (auto& [name, value] : *pairs) {
        if (name == "service.name") {
          spec.service_name = value;
        } else {
          spec.resource.insert_or_assign(name, value);
        }
      }
    } else {
      env.wrong("a list name=value,...");
    }
  }
  if (const auto name = env.value("OTEL_SERVICE_NAME")) spec.service_name = *name;
  read_endpoint(env, traces);
  if (const auto text = env.value("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")) {
    if (*text == "grpc") {
      traces.protocol = Protocol::grpc;
    } else if (*text == "http/protobuf") {
      traces.protocol = Protocol::http;
    } else {
      env.wrong("grpc or http/protobuf");
    }
  }
  if (const auto text = env.value("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")) {
    if (auto pairs = parse_pairs(*text)) {
      for (auto& [name, value] : *pairs) traces.headers.insert_or_assign(name, config::Secret(std::move(value)));
    } else {
      env.wrong("a list name=value,...");
    }
  }
  if (const auto text = env.value("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"))
    traces.certificate = *text;
  if (const auto text = env.value("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")) {
    if (*text == "gzip" || *text == "none") {
      traces.compression = *text == "gzip" ? Compression::gzip : Compression::none;
    } else {
      env.wrong("gzip or none");
    }
  }
  constexpr std::int64_t kDay = 86'400'000;
  read_number<std::int64_t>(env, "OTEL_EXPORTER_OTLP_TIMEOUT", 1, kDay, traces.timeout);
  read_number<std::int64_t>(env, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 1, kDay, traces.timeout);
  read_number<std::int64_t>(env, "OTEL_BSP_SCHEDULE_DELAY", 1, kDay, traces.delay);
  read_number<std::uint32_t>(env, "OTEL_BSP_MAX_QUEUE_SIZE", 1, 1'000'000, traces.queue);
  read_number<std::uint32_t>(env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, 100'000, traces.batch);
  read_sampler(env, traces);
  if (const auto text = env.value("OTEL_TRACES_EXPORTER")) {
    if (*text == "none") {
      traces.endpoint.reset();
    } else if (*text != "otlp") {
      env.wrong("otlp or none");
    } else if (!traces.endpoint) {
      traces.endpoint = traces.protocol == Protocol::http ? "http://localhost:4318" : "http://localhost:4317";
    }
  }
  if (const auto text = env.value("OTEL_SDK_DISABLED"); text && folded(*text) == "true") traces.endpoint.reset();
  return std::move(env).problems();
}

}  // namespace prism::telemetry
