// What a serving process tells of itself: the log's output, and the export of traces.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "telemetry/exporter.h"
#include "telemetry/log.h"
#include "telemetry/options.h"

namespace prism::cli {

// The file's section with what the environment says put over it; what is wrong with the environment is logged.
telemetry::Spec with_environment(telemetry::Spec spec);

// The command line before the file before the defaults.
log::Options log_options(const telemetry::LogSpec& file, std::optional<log::Level> level,
                         std::optional<log::Format> format);

// Records and sends spans as long as it lives; it outlives requests and jobs. Its end sends what is left.
class Tracing {
 public:
  // Null where traces are not exported. `instance` names this process. OTLP_NOT_AVAILABLE.
  static Result<std::unique_ptr<Tracing>> start(const telemetry::Spec& spec, const std::string& instance,
                                                Metrics& metrics);

 private:
  Tracing(std::unique_ptr<trace::Exporter> exporter, const telemetry::TraceSpec& spec, Metrics& metrics);
  trace::Batcher batcher_;
  trace::Tracer tracer_;
};

}  // namespace prism::cli
