// The command line: one subcommand a file. A command declares itself on the parser and leaves what to run.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "base/text.h"

namespace prism::cli {

// Exit codes of every command; documented in `prism --help`.
enum class Exit : int {
  good = 0,
  failed = 1,       // the server refused, the file is invalid, something went wrong
  unusable = 2,     // the command line or a file cannot be used; an address is taken
  unreachable = 3,  // client commands: no server answers there
  timed_out = 4,    // client commands: the time given was over first
  differs = 5,      // apply --dry-run: something would change
};

using Run = std::function<Exit()>;

// Each adds its subcommand to `root`; when it is the one called, `chosen` is set by the parser.
void add_serve(CLI::App& root, Run& chosen);
void add_dev(CLI::App& root, Run& chosen);
void add_validate(CLI::App& root, Run& chosen);
void add_check(CLI::App& root, Run& chosen);
void add_plan(CLI::App& root, Run& chosen);
void add_explain(CLI::App& root, Run& chosen);
void add_schema(CLI::App& root, Run& chosen);
void add_top(CLI::App& root, Run& chosen);
void add_profile(CLI::App& root, Run& chosen);
void add_apply(CLI::App& root, Run& chosen);
void add_publish(CLI::App& root, Run& chosen);
void add_subscribe(CLI::App& root, Run& chosen);
void add_version(CLI::App& root, Run& chosen);
void add_completions(CLI::App& root, Run& chosen);

// An option's value by one of these names, whatever their case; else the message says which there are.
template <class E>
CLI::Validator one_of(const std::map<std::string, E>& names) {
  return CLI::Validator(
      [names](std::string& given) -> std::string {
        std::string known;
        for (const auto& [name, value] : names) {
          const std::string number = std::to_string(static_cast<std::int64_t>(value));  // what CLI11 makes an E of
          if (CLI::detail::to_lower(given) == name) {
            given = number;
            return {};
          }
          if (given == number) return {};  // transformed before
          known += (known.empty() ? "" : ", ") + name;
        }
        return "'" + shown(given) + "' is not one of " + known;
      },
      "");
}

// Options of several commands, spelled the same everywhere.
enum class Format : int { text, json };
CLI::Option* add_format(CLI::App& command, Format& format);

int run(int argc, char** argv);

}  // namespace prism::cli
