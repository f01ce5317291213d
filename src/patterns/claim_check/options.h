// Options of the claim-check pattern, declared once (options.cc).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "patterns/components.h"

namespace prism::config {
struct SchemaInfo;
}

namespace prism::claim_check {

struct Options {
  std::uint64_t threshold = 1'000'000;   // bytes; only a larger payload is checked in
  std::string backend = "s3";            // storage.backend
  std::string bucket;                    // storage.bucket; empty: "prism-<namespace>"
  std::string prefix = "claim-checks/";  // storage.prefix
  bool on_consume = true;                // cleanup: delete after every group has acknowledged
  std::optional<Clock::duration> expiry = std::chrono::hours(24 * 7);  // since the upload; none: never
  Clock::duration orphan_age = std::chrono::hours(1);  // an object older than this that nothing refers to is removed
  Clock::duration interval = std::chrono::milliseconds(500);  // between looks of the cleaner
};

// The declaration that read_options() parses with.
std::shared_ptr<const config::SchemaInfo> options_info();

// Reads a validated entry; what is wrong is said in `diagnostics`.
Options read_options(const config::Node& entry, config::Diagnostics& diagnostics);

// What PatternType asks of options that are valid. Reasons of warnings: THRESHOLD_ABOVE_LIMIT, EXPIRY_BELOW_RETENTION,
// GROUPS_WITHOUT_CLEANUP.
void review_options(const config::Node& entry, const Surroundings& around, config::Diagnostics& diagnostics);
std::vector<Holding> holdings(const config::Node& entry, std::string_view namespace_name);

}  // namespace prism::claim_check
