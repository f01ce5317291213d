// The file that a server serves, and its changes while it serves.
//
// The file is the one truth: a start reads it, a reload reads it again, and what apply() is given becomes its content,
// so that the next start does not undo it. A text that is invalid, or that the registry refuses, changes nothing.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "config/diagnostics.h"
#include "namespaces/change.h"
#include "namespaces/parse.h"
#include "namespaces/registry.h"
#include "telemetry/metrics.h"

namespace prism {

// Who asked.
enum class ReloadSource : std::uint8_t { start, signal, watch, apply, admin };
std::string_view to_string(ReloadSource) noexcept;

enum class ReloadResult : std::uint8_t {
  replaced,   // the new text is served
  unchanged,  // it means what is served already
  would,      // a dry run: it would be replaced
  invalid,    // the text has errors
  refused,    // it would leave work behind, or the file is not ours to write
  failed,     // something of it could not be built, or the file could not be read
};
std::string_view to_string(ReloadResult) noexcept;

struct Reload {
  ReloadSource source = ReloadSource::start;
  ReloadResult result = ReloadResult::replaced;
  bool dry_run = false;  // nothing was tried: it is neither counted nor shown as the last try
  WallTime at{};
  std::uint64_t generation = 1;  // after it
  std::vector<PartChange> changes;
  std::vector<Unfinished> in_the_way;  // of a dry run: what a replacement would have to wait for now
  std::vector<Unfinished> abandoned;
  std::vector<config::Diagnostic> diagnostics;
  std::optional<Error> error;  // set unless replaced, unchanged or would

  bool good() const noexcept { return !error.has_value(); }
};

// The text that was served last from a data folder, kept there with the mode 0600: the next start sees what it served
// that the file no longer has. One for each file that is served from the folder.
class LastServed {
 public:
  // `embedded`: what was served by embedded twins is no matter for the others, and the other way round.
  LastServed(const std::string& data_dir, const std::string& file, bool embedded);
  const std::string& path() const noexcept { return path_; }
  std::optional<std::string> read() const;            // none: nothing was served yet, or it cannot be read
  Result<void> write(const std::string& text) const;  // whole or not at all. FILE_UNWRITABLE

 private:
  std::string path_;
};

// Thread-safe; calls block, for as long as a replacement takes.
class LiveFile {
 public:
  // What a file says, with the text that says so.
  struct Read {
    std::string text;
    ParsedFile parsed;
  };
  static Read read(const std::string& path, const Components& components);

  // `served`: what the registry was opened with, and `last_served` has. Components, registry and metrics outlive it.
  LiveFile(std::string path, Read served, LastServed last_served, const Components& components, Registry& registry,
           Metrics& metrics);
  ~LiveFile();

  const std::string& path() const noexcept { return path_; }
  // Reads the file again. Source watch: nothing happens where it is as it was at the last try, unless another try has
  // a better chance: work that was in the way has become less, or time has passed since something could not be built.
  Reload reload(ReloadSource source);
  struct Apply {
    std::string text;
    std::string name;               // of the text in messages; empty: that of the server's file
    std::set<std::string> abandon;  // see Registry::replace
    bool dry_run = false;
  };
  // Writes the file when everything else has succeeded. RELOAD_IN_PROGRESS (for long), FILE_CHANGED (the file is
  // neither what is served nor the text), FILE_UNWRITABLE, NAMESPACE_NOT_FOUND (what is to be abandoned).
  Reload apply(Apply request);

  struct Status {
    std::uint64_t generation = 1;  // counts replacements since the start
    WallTime since{};              // of this generation
    ReloadSource source = ReloadSource::start;
    std::uint32_t crc32c = 0;  // of the text that is served
    Reload last;               // the last try
  };
  Status status() const;
  // Ends what is under way, and refuses what comes later: NOT_SERVING.
  void stop();

 private:
  class Writing;
  Reload change(Read read, Reload reload, std::set<std::string> abandon, Writing* writing);
  Reload finish(Reload reload);
  std::optional<Error> unknown(const std::set<std::string>& names) const;
  Reload failed(Reload reload, ReloadResult result, Error error);

  const std::string path_;
  const LastServed last_served_;
  const Components& components_;
  Registry& registry_;
  std::stop_source stop_;

  bool worth_a_try(const Read& read);

  std::timed_mutex changing_;  // one change at a time; guards those below
  std::string served_text_;
  FileSpec served_;
  std::optional<std::string> tried_;   // the text of the last try
  std::optional<std::uint64_t> left_;  // what was in its way when it was last looked at

  mutable std::mutex mutex_;
  Status status_;  // guarded by mutex_

  MetricFamily<Counter> reloads_;
  Gauge& generation_;
  Gauge& good_;
  Gauge& since_;
};

}  // namespace prism
