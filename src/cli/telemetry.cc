#include "cli/telemetry.h"

#include <algorithm>
#include <cstdlib>

namespace prism::cli {

telemetry::Spec with_environment(telemetry::Spec spec) {
  const auto problems = telemetry::apply_environment(spec, [](const char* name) { return std::getenv(name); });
  for (const auto& [variable, problem] : problems)
    log::warn("an environment variable is left out", {{"option", variable}, {"error", problem}});
  return spec;
}

log::Options log_options(const telemetry::LogSpec& file, std::optional<log::Level> level,
                         std::optional<log::Format> format) {
  return {.level = level.value_or(file.level.value_or(log::Level::info)),
          .format = format.value_or(file.format.value_or(log::Format::automatic)),
          .repeat_after = file.repeat_after,
          .sink = {},
          .now = {}};
}

Result<std::unique_ptr<Tracing>> Tracing::start(const telemetry::Spec& spec, const std::string& instance,
                                                Metrics& metrics) {
  if (!spec.traces.endpoint) return nullptr;
  PRISM_TRY(auto exporter, trace::load_otlp_exporter(trace::make_receiver(spec, instance)));
  return std::unique_ptr<Tracing>(new Tracing(std::move(exporter), spec.traces, metrics));
}

Tracing::Tracing(std::unique_ptr<trace::Exporter> exporter, const telemetry::TraceSpec& spec, Metrics& metrics)
    : batcher_(
          std::move(exporter), metrics,
          {.queue = spec.queue, .batch = std::min(spec.batch, spec.queue), .delay = spec.delay, .url = spec.url()}),
      tracer_({.sampling = spec.sampler, .ratio = spec.sampling}, batcher_) {}

}  // namespace prism::cli
