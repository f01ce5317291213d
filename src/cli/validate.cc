#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "namespaces/parse.h"

namespace prism::cli {
namespace {

struct Options {
  std::string file;
  Format format = Format::text;
};

std::string counted(std::size_t n, std::string_view what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

Exit validate(const Options& options) {
  const auto parsed = parse_file(options.file, components());
  const auto& found = parsed.diagnostics;
  if (options.format == Format::json) {
    nlohmann::json namespaces = nlohmann::json::array();
    if (parsed.ok()) {
      for (const auto& ns : parsed.file.namespaces) {
        nlohmann::json patterns = nlohmann::json::array();
        for (const auto& pattern : ns.patterns) {
          if (pattern.enabled) patterns.push_back(pattern.type);
        }
        namespaces.push_back({{"name", ns.name},
                              {"client_api", to_string(ns.api())},
                              {"patterns", std::move(patterns)},
                              {"consumer_groups", ns.consumer_groups}});
      }
    }
    const nlohmann::json out = {{"file", options.file},
                                {"valid", parsed.ok()},
                                {"diagnostics", nlohmann::json::parse(config::format_json(found))},
                                {"namespaces", std::move(namespaces)}};
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "{}", config::format_text(found));
    const std::size_t warnings = found.items().size() - found.error_count();
    if (!parsed.ok()) {
      fmt::print(stderr, "{}: {}\n", options.file, counted(found.error_count(), "error"));
    } else {
      fmt::print("{}: good, {}{}\n", options.file, counted(parsed.file.namespaces.size(), "namespace"),
                 warnings == 0 ? "" : ", " + counted(warnings, "warning"));
      for (const auto& ns : parsed.file.namespaces) {
        std::string patterns;
        for (const auto& pattern : ns.patterns) {
          if (pattern.enabled) patterns += (patterns.empty() ? "" : ", ") + pattern.type;
        }
        fmt::print("  {:<20} {:<10} {}\n", ns.name, to_string(ns.api()), patterns.empty() ? "no patterns" : patterns);
      }
    }
  }
  if (parsed.ok()) return Exit::good;
  // The file itself, not what it says: ${file:...} inside has the same reason, and a position.
  return ::access(options.file.c_str(), R_OK) == 0 ? Exit::failed : Exit::unusable;
}

}  // namespace

void add_validate(CLI::App& root, Run& chosen) {
  auto* command =
      root.add_subcommand("validate", "Check a configuration file: all its mistakes at once, with their places");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The configuration, YAML")->required()->type_name("");
  add_format(*command, options->format);
  command->footer("Exit codes: 0 good (warnings allowed); 1 the file has errors; 2 it cannot be read.");
  command->callback([&chosen, options] { chosen = [options] { return validate(*options); }; });
}

}  // namespace prism::cli
