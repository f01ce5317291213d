#include "namespaces/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "namespaces/parse.h"
#include "runtime/scope.h"
#include "telemetry/log.h"

namespace prism::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string file;
  double timeout = 5;
  Format format = Format::text;
};

void print_json(const Options& options, const std::vector<BackendAnswer>& answers, bool good) {
  Json backends = Json::array();
  for (const auto& each : answers) {
    Json one = {{"name", each.name},
                {"type", each.type},
                {"description", each.description},
                {"namespaces", each.namespaces},
                {"answers", !each.error},
                {"took_ms", std::chrono::duration<double, std::milli>(each.took).count()}};
    if (each.error) {
      one["error"] = {{"code", to_string(each.error->code)},
                      {"reason", each.error->reason},
                      {"message", each.error->message},
                      {"hint", each.error->hint}};
    }
    backends.push_back(std::move(one));
  }
  const Json out = {{"file", options.file}, {"good", good}, {"backends", std::move(backends)}};
  fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
}

void print_text(const std::vector<BackendAnswer>& answers) {
  if (answers.empty()) fmt::print("no namespace uses a backend that could be asked\n");
  for (const auto& each : answers) {
    if (!each.error) {
      fmt::print("{:<16} answers in {}: {}\n", each.name, human_time(each.took), each.description);
      continue;
    }
    fmt::print("{:<16} {}: {}\n", each.name, each.error->reason, each.error->message);
    if (!each.error->hint.empty()) fmt::print("{:<16} hint: {}\n", "", each.error->hint);
    std::string names;
    for (const auto& ns : each.namespaces) names += (names.empty() ? "" : ", ") + ns;
    fmt::print("{:<16} used by {}\n", "", names);
  }
}

Exit check(const Options& options) {
  const auto parsed = parse_file(options.file, components());
  fmt::print(stderr, "{}", config::format_text(parsed.diagnostics));
  if (!parsed.ok()) return parsed.readable() ? Exit::failed : Exit::unusable;
  const log::Output quiet({.level = log::Level::off});  // what is found is printed once
  Runtime runtime;
  const auto patience = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.timeout));
  const auto answers = run_blocking(check_backends(Context(), &parsed.file, &components(), &runtime, patience));
  const bool good = std::ranges::none_of(answers, [](const auto& each) { return each.error.has_value(); });
  options.format == Format::json ? print_json(options, answers, good) : print_text(answers);
  return good ? Exit::good : Exit::failed;
}

}  // namespace

void add_check(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand(
      "check",
      "Ask every backend of a file whether it answers, with the credentials that stand there; changes nothing");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The configuration, YAML")->required()->type_name("");
  command->add_option("--timeout", options->timeout, "How long each may take")
      ->type_name("SECONDS")
      ->default_str("5")
      ->check(CLI::Range(0.001, 3600.0).description(""));
  add_format(*command, options->format);
  command->footer("Exit codes: 0 all answer; 1 one does not, or the file has errors; 2 the file cannot be read.");
  command->callback([&chosen, options] { chosen = [options] { return check(*options); }; });
}

}  // namespace prism::cli
