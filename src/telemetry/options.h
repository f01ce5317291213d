// The `telemetry:` section of a file: export of traces, and logs.
//
// Who says what: the command line before OpenTelemetry's environment variables before the file before the defaults.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/schema.h"
#include "config/secret.h"
#include "telemetry/log.h"
#include "telemetry/trace.h"

namespace prism::telemetry {

enum class Protocol : std::uint8_t { grpc, http };
enum class Compression : std::uint8_t { none, gzip };

struct TraceSpec {
  std::optional<std::string> endpoint;  // URL of an OTLP receiver; none: traces are not exported, nothing is recorded
  std::optional<Protocol> protocol;     // none: http for port 4318, else grpc
  trace::Sampling sampler = trace::Sampling::parent_based;
  double sampling = 1;  // 0 to 1
  std::map<std::string, config::Secret> headers;
  std::optional<std::string> certificate;  // file with the authorities that the receiver's certificate is checked by
  Compression compression = Compression::none;
  std::chrono::milliseconds timeout{10'000};  // of one export
  std::chrono::milliseconds delay{1'000};     // a span waits at most so long for others to be sent with
  std::uint32_t queue = 8'192;                // spans that wait; further ones are dropped and counted
  std::uint32_t batch = 512;                  // spans of one export

  // The endpoint's place for spans: for http with the path v1/traces where it has none.
  Protocol chosen_protocol() const;
  std::string url() const;
};

struct LogSpec {
  std::optional<log::Level> level;    // none: info
  std::optional<log::Format> format;  // none: pretty on a terminal, else json
  std::chrono::milliseconds repeat_after{10'000};
};

struct Spec {
  std::optional<std::string> service_name;      // none: "prism"
  std::map<std::string, std::string> resource;  // further attributes of this process in traces
  bool metrics = true;
  TraceSpec traces;
  LogSpec logs;
};

const config::Schema<Spec>& schema();

// What OTEL_* variables say, put over the file's section. `get` gives null for what is not set. A value that means
// nothing is left out, as OpenTelemetry asks, and said in the result: the variable's name and what it must be.
std::vector<std::pair<std::string, std::string>> apply_environment(
    Spec& spec, const std::function<const char*(const char* name)>& get);

}  // namespace prism::telemetry
