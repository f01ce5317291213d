// proves: F-01, F-05
// A configuration file: YAML, spellings, options of patterns, composition. Whatever stands in it, what is wrong is said
// in order and no secret shows.
#include <string>

#include "backends/sqlite/server_options.h"
#include "base/text.h"
#include "config/diagnostics.h"
#include "fuzz.h"
#include "namespaces/parse.h"
#include "patterns/claim_check/guarantees.h"
#include "patterns/claim_check/options.h"
#include "patterns/outbox/guarantees.h"
#include "patterns/outbox/options.h"

namespace prism {
namespace {

// Not a name of anything: names, of a namespace say, are shown wherever they come from.
constexpr std::string_view kSecret = "Hunter2 (secret)";

BackendType backend(std::string_view name, std::vector<std::string_view> aliases,
                    std::vector<std::string_view> capabilities) {
  BackendType type;
  type.name = name;
  type.aliases = std::move(aliases);
  type.capabilities = std::move(capabilities);
  type.validate = sqlite::server_options(name).validate;
  return type;
}

// The patterns that are built, with their options and guarantees and without the engines that would do their work.
const Components& parsed_components() {
  static const Components all = [] {
    Components out;
    PatternType claim_check;
    claim_check.info = {.name = "claim-check",
                        .apis = {"pubsub", "queue", "transact"},
                        .backends = {{.option = "storage.backend", .any_of = {"object-store"}, .standard = "s3"},
                                     {.option = "", .any_of = {"event-log"}, .standard = ""}},
                        .rank = 10,
                        .before = {"tiered-storage"},
                        .shape = claim_check::shape,
                        .jobs = claim_check::jobs};
    claim_check.validate = [](const config::Node& options, config::Diagnostics& diagnostics) {
      (void)claim_check::read_options(options, diagnostics);
    };
    out.patterns.push_back(std::move(claim_check));
    PatternType outbox;
    outbox.info = {.name = "outbox",
                   .apis = {"pubsub", "queue", "transact"},
                   .backends = {{.option = "database.backend", .any_of = {"sql-database"}, .standard = "postgres"},
                                {.option = "publisher.destination.backend", .any_of = {"event-log"}, .standard = ""}},
                   .rank = 20,
                   .shape = outbox::shape,
                   .jobs = outbox::jobs};
    outbox.validate = [](const config::Node& options, config::Diagnostics& diagnostics) {
      (void)outbox::read_options(options, diagnostics);
    };
    out.patterns.push_back(std::move(outbox));
    out.backends = {backend("kafka", {"redpanda"}, {"event-log"}),
                    backend("nats", {"nats-jetstream"}, {"event-log", "lease"}),
                    backend("postgres", {"postgresql"}, {"key-value-store", "sql-database", "lease"}),
                    backend("redis", {"valkey"}, {"event-log", "key-value-store", "lease"})};
    BackendType s3;
    s3.name = "s3";
    s3.aliases = {"minio"};
    s3.capabilities = {"object-store"};
    out.backends.push_back(std::move(s3));
    return out;
  }();
  return all;
}

bool is_reason(std::string_view reason) {
  return !reason.empty() && reason.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string_view::npos;
}

// Of whole characters.
bool is_one_line(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_sequence(text);
    if (length == 0 || text.front() == '\n' || text.front() == '\r') return false;
    text.remove_prefix(length);
  }
  return true;
}

void parse(std::string_view text) {
  config::LoadOptions options;
  options.file_name = "f.yaml";
  options.base_directory = "/nonexistent";
  options.max_bytes = 64 << 10;
  options.max_nodes = 5'000;  // what is repeated by aliases is only slow
  options.environment = [](const std::string& name) {
    return name == "SECRET" ? std::optional<std::string>(kSecret) : std::nullopt;
  };
  const ParsedFile parsed = parse_text(text, parsed_components(), options);
  const std::string shown = config::format_text(parsed.diagnostics) + config::format_json(parsed.diagnostics);
  REQUIRE(text.find(kSecret) != std::string_view::npos || shown.find(kSecret) == std::string::npos);
  for (const config::Diagnostic& diagnostic : parsed.diagnostics.items()) {
    REQUIRE(is_reason(diagnostic.reason));
    REQUIRE(!diagnostic.message.empty());
    REQUIRE(is_one_line(diagnostic.message) && is_one_line(diagnostic.hint));
    REQUIRE(diagnostic.position.line >= 0);
    REQUIRE(diagnostic.position.column >= 0);
  }
  if (!parsed.ok()) {
    REQUIRE(is_reason(parsed.diagnostics.to_error().reason));
    return;
  }
  for (const NamespaceSpec& ns : parsed.file.namespaces) {
    REQUIRE(!ns.name.empty());
    REQUIRE(parsed.file.find(ns.name) == &ns);
  }
}

}  // namespace
}  // namespace prism

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  prism::parse(prism::fuzz::text_of(data, size));
  return 0;
}
