#include "telemetry/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace prism::telemetry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Spec parse(const std::string& yaml) {
  config::Diagnostics diagnostics;
  const auto root = config::load_text(yaml, {}, diagnostics);
  const auto spec = schema().parse(root.value(), diagnostics);
  EXPECT_EQ(diagnostics.error_count(), 0) << config::format_text(diagnostics);
  return spec.value_or(Spec());
}

std::string errors(const std::string& yaml) {
  config::Diagnostics diagnostics;
  const auto root = config::load_text(yaml, {}, diagnostics);
  (void)schema().parse(root.value(), diagnostics);
  return config::format_text(diagnostics);
}

std::vector<std::pair<std::string, std::string>> apply(Spec& spec,
                                                       const std::map<std::string, std::string>& variables) {
  return apply_environment(spec, [&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it != variables.end() ? it->second.c_str() : nullptr;
  });
}

TEST(TelemetryOptions, NothingIsExportedByDefault) {
  const Spec spec = parse("{}");
  EXPECT_FALSE(spec.traces.endpoint);
  EXPECT_EQ(spec.traces.sampling, 1);
  EXPECT_EQ(spec.traces.sampler, trace::Sampling::parent_based);
  EXPECT_FALSE(spec.logs.level);
}

// proves: M-24, M-27
TEST(TelemetryOptions, AFileSaysWhereTracesGoAndHowLogsLook) {
  const Spec spec = parse(R"(
service_name: orders-proxy
resource: {deployment.environment.name: test}
traces:
  endpoint: https://collector:4317
  sampling: 1%
  sampler: ratio
  headers: {authorization: secret}
  compression: gzip
  timeout: 5s
  batch: 100
logs: {level: debug, format: json, repeat_after: 1m}
)");
  EXPECT_EQ(spec.service_name, "orders-proxy");
  EXPECT_EQ(spec.traces.url(), "https://collector:4317");
  EXPECT_EQ(spec.traces.chosen_protocol(), Protocol::grpc);
  EXPECT_DOUBLE_EQ(spec.traces.sampling, 0.01);
  EXPECT_EQ(spec.traces.sampler, trace::Sampling::ratio);
  EXPECT_EQ(spec.traces.headers.at("authorization").reveal(), "secret");
  EXPECT_EQ(spec.traces.compression, Compression::gzip);
  EXPECT_EQ(spec.traces.timeout, std::chrono::seconds(5));
  EXPECT_EQ(spec.traces.batch, 100);
  EXPECT_EQ(spec.logs.level, log::Level::debug);
  EXPECT_EQ(spec.logs.format, log::Format::json);
  EXPECT_EQ(spec.logs.repeat_after, std::chrono::minutes(1));
}

TEST(TelemetryOptions, MistakesAreNamed) {
  EXPECT_THAT(errors("traces: {endpoint: collector}"), HasSubstr("INVALID_VALUE"));
  EXPECT_THAT(errors("traces: {sampling: 2}"), HasSubstr("write a number from 0 to 1, or 1%"));
  EXPECT_THAT(errors("traces: {sampling: [1]}"), HasSubstr("is no share"));
  EXPECT_THAT(errors("traces: {samplin: 1}"), HasSubstr("sampling"));
  EXPECT_THAT(errors("logs: {level: loud}"), HasSubstr("loud"));
}

TEST(TelemetryOptions, TheUrlFollowsTheProtocol) {
  const auto url = [](std::string endpoint, std::optional<Protocol> protocol) {
    TraceSpec spec;
    spec.endpoint = std::move(endpoint);
    spec.protocol = protocol;
    return spec.url();
  };
  EXPECT_EQ(url("http://h:4317", {}), "http://h:4317");
  EXPECT_EQ(url("http://h:4318", {}), "http://h:4318/v1/traces");
  EXPECT_EQ(url("http://h:4318/", {}), "http://h:4318/v1/traces");
  EXPECT_EQ(url("http://h:80/own/path", Protocol::http), "http://h:80/own/path");
  EXPECT_EQ(url("http://h:4318/v1/traces", Protocol::grpc), "http://h:4318");
}

// proves: M-24
TEST(TelemetryOptions, TheEnvironmentComesBeforeTheFile) {
  Spec spec = parse(
      "{service_name: file, resource: {a: file, b: file}, traces: {endpoint: 'http://file:4317', sampling: 0.5}}");
  const auto problems = apply(spec, {{"OTEL_SERVICE_NAME", "environment"},
                                     {"OTEL_RESOURCE_ATTRIBUTES", "a=1%202,c=3"},
                                     {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/otlp"},
                                     {"OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, tenant=1"},
                                     {"OTEL_EXPORTER_OTLP_TIMEOUT", "2000"},
                                     {"OTEL_TRACES_SAMPLER", "traceidratio"},
                                     {"OTEL_TRACES_SAMPLER_ARG", "0.25"},
                                     {"OTEL_BSP_MAX_QUEUE_SIZE", "10"},
                                     {"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"}});
  EXPECT_THAT(problems, IsEmpty());
  EXPECT_EQ(spec.service_name, "environment");
  EXPECT_THAT(spec.resource, ElementsAre(Pair("a", "1 2"), Pair("b", "file"), Pair("c", "3")));
  EXPECT_EQ(spec.traces.url(), "http://base:4318/otlp/v1/traces");
  EXPECT_EQ(spec.traces.headers.at("authorization").reveal(), "Bearer x");
  EXPECT_EQ(spec.traces.headers.at("tenant").reveal(), "1");
  EXPECT_EQ(spec.traces.timeout, std::chrono::seconds(2));
  EXPECT_EQ(spec.traces.sampler, trace::Sampling::ratio);
  EXPECT_EQ(spec.traces.sampling, 0.25);
  EXPECT_EQ(spec.traces.queue, 10);
  EXPECT_EQ(spec.traces.compression, Compression::gzip);
}

TEST(TelemetryOptions, TheVariableOfTheSignalComesBeforeTheGeneralOne) {
  Spec spec;
  EXPECT_THAT(apply(spec, {{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4317"},
                           {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4000/here"},
                           {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"},
                           {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}}),
              IsEmpty());
  EXPECT_EQ(spec.traces.url(), "http://traces:4000/here");
}

TEST(TelemetryOptions, TheEnvironmentTurnsExportOnAndOff) {
  Spec on;
  EXPECT_THAT(apply(on, {{"OTEL_TRACES_EXPORTER", "otlp"}}), IsEmpty());
  EXPECT_EQ(on.traces.url(), "http://localhost:4317");
  Spec none = parse("traces: {endpoint: 'http://file:4317'}");
  EXPECT_THAT(apply(none, {{"OTEL_TRACES_EXPORTER", "none"}}), IsEmpty());
  EXPECT_FALSE(none.traces.endpoint);
  Spec disabled = parse("traces: {endpoint: 'http://file:4317'}");
  EXPECT_THAT(apply(disabled, {{"OTEL_SDK_DISABLED", "True"}}), IsEmpty());
  EXPECT_FALSE(disabled.traces.endpoint);
}

TEST(TelemetryOptions, SamplersOfTheEnvironment) {
  const auto sampled = [](std::string sampler, std::string argument) {
    Spec spec;
    EXPECT_THAT(apply(spec, {{"OTEL_TRACES_SAMPLER", sampler}, {"OTEL_TRACES_SAMPLER_ARG", argument}}), IsEmpty());
    return std::pair(spec.traces.sampler, spec.traces.sampling);
  };
  using enum trace::Sampling;
  EXPECT_EQ(sampled("always_on", ""), std::pair(ratio, 1.0));
  EXPECT_EQ(sampled("always_off", ""), std::pair(ratio, 0.0));
  EXPECT_EQ(sampled("parentbased_always_on", ""), std::pair(parent_based, 1.0));
  EXPECT_EQ(sampled("parentbased_always_off", ""), std::pair(parent_based, 0.0));
  EXPECT_EQ(sampled("parentbased_traceidratio", "0.01"), std::pair(parent_based, 0.01));
  EXPECT_EQ(sampled("traceidratio", ""), std::pair(ratio, 1.0));
}

TEST(TelemetryOptions, WhatMeansNothingIsLeftOutAndSaid) {
  Spec spec = parse("traces: {endpoint: 'http://file:4317', timeout: 3s}");
  const auto problems = apply(spec, {{"OTEL_EXPORTER_OTLP_ENDPOINT", "file"},
                                     {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
                                     {"OTEL_EXPORTER_OTLP_TIMEOUT", "soon"},
                                     {"OTEL_EXPORTER_OTLP_HEADERS", "s3cret"},
                                     {"OTEL_TRACES_SAMPLER", "jaeger_remote"},
                                     {"OTEL_RESOURCE_ATTRIBUTES", "%zz=1%q"}});
  EXPECT_EQ(problems.size(), 6);
  for (const auto& [variable, problem] : problems) {
    EXPECT_THAT(variable, HasSubstr("OTEL_"));
    EXPECT_THAT(problem, ::testing::Not(HasSubstr("s3cret")));
  }
  EXPECT_EQ(spec.traces.url(), "http://file:4317");
  EXPECT_EQ(spec.traces.timeout, std::chrono::seconds(3));
  EXPECT_EQ(spec.traces.sampling, 1);
}

}  // namespace
}  // namespace prism::telemetry
