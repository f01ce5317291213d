// Layer 2: the operations that patterns decorate, and what a pattern is.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"
#include "capabilities/event_log.h"
#include "capabilities/position.h"
#include "runtime/payload.h"

namespace prism {

// A payload that fails with this reason belongs to a repeat of a message that every group has acknowledged, and was
// cleaned up since: the delivery is to be acknowledged and not shown.
inline constexpr std::string_view kMessageRepeated = "MESSAGE_REPEATED";

// What Prism itself notes on a message on its way through the chain ("claim_check_id"). On the log they are headers
// "prism-claim-check-id"; a client sees them on request only.
using Attributes = std::vector<std::pair<std::string, std::string>>;

struct Message {
  std::string topic;  // the physical one
  std::string id;     // never empty: made by the API when the client gave none
  std::string key;    // ordering key; empty: none
  Headers headers;    // the application's metadata, and content-type
  Attributes attributes;
  Payload payload;

  const std::string* attribute(std::string_view name) const;
  void set_attribute(std::string_view name, std::string value);
};

struct Received {
  std::string token;
  Message message;
  Position at;
  WallTime time{};  // of the append to the log
  std::uint32_t attempt = 1;
};

// One call publishes a batch: a result an entry, in order; entries of one key keep their order, and a failed entry
// fails the later ones of its key. Any thread; any number of calls at once.
class Publisher {
 public:
  virtual ~Publisher() = default;
  virtual Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) = 0;
};

// See GroupConsumer: one receive outstanding, any number of settle.
class Subscription {
 public:
  virtual ~Subscription() = default;
  virtual Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) = 0;
  virtual Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) = 0;
  virtual Task<void> close(Context context) = 0;
};

class Subscriber {
 public:
  virtual ~Subscriber() = default;
  virtual Task<Result<std::unique_ptr<Subscription>>> subscribe(Context context, GroupSpec spec) = 0;
};

// What a chain offers to the API. Decorators own what they wrap.
struct Ports {
  std::unique_ptr<Publisher> publish;
  std::unique_ptr<Subscriber> subscribe;
};

// RFC-014's pattern metadata.
struct PatternInfo {
  std::string_view name;                // "claim-check"
  std::string_view version;             // "1.0.0"
  std::string_view summary;             // one sentence
  std::vector<std::string_view> needs;  // capabilities: "object-store", "sql-database", "event-log"; any backend that
                                        // has them is compatible
  int rank = 0;                         // canonical order: a smaller rank stands further out (nearer to the client)
};

class Assembly;

// Names and values, for people and for looking on: operations must not depend on them.
using Facts = std::vector<std::pair<std::string, std::string>>;

// One pattern of one namespace. Made by its component's factory from parsed options; then wraps the chain below it.
class Pattern {
 public:
  virtual ~Pattern() = default;
  virtual const PatternInfo& info() const noexcept = 0;
  // A pattern may name the log that the namespace writes to, and a topic that everything goes to (outbox: the
  // publisher's destination). Empty: it does not.
  virtual std::string log_backend() const { return {}; }
  virtual std::string fixed_topic() const { return {}; }
  // Has the background work of this pattern nothing left to do for what was published and acknowledged so far?
  virtual Task<Result<bool>> settled(Context context);
  // What it holds at this moment ("pending": "3"). May take as long as reading all of it.
  virtual Task<Result<Facts>> inspect(Context context);
  // Takes what is below and gives what the layer above sees; registers its jobs with the assembly. May do I/O (make a
  // table).
  virtual Task<Result<Ports>> wrap(Context context, Ports below, Assembly& assembly) = 0;
};

}  // namespace prism
