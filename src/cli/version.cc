#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"

namespace prism::cli {

void add_version(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("version", "Print the version of this program");
  auto format = std::make_shared<Format>(Format::text);
  add_format(*command, *format);
  command->callback([&chosen, format] {
    chosen = [format] {
      if (*format == Format::json) {
        fmt::print("{}\n",
                   nlohmann::json{{"name", "prism"}, {"version", PRISM_VERSION}, {"compiler", __VERSION__}}.dump());
      } else {
        fmt::print("prism {}\n", PRISM_VERSION);
      }
      return Exit::good;
    };
  });
}

}  // namespace prism::cli
