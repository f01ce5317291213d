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
#include "config/document.h"
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

// A backend that a pattern uses: which of its options names it, and what it must be able to do.
struct BackendNeed {
  // Dotted path of the option ("storage.backend"); a component followed by [] is a list or map, each entry of which is
  // meant ("consumers[].backend"). Where the path ends early at a scalar, that is the name (`storage: s3`). Empty: the
  // namespace's own `backend`.
  std::string_view option;
  std::vector<std::string_view> any_of;  // capabilities, one of which it must have: "object-store", "event-log"
  std::string_view standard;             // used when the option is not given; empty: the namespace's own, if any
};

struct PatternConflict {
  std::string_view pattern;
  std::string_view why;  // reads on from "A and B cannot be in one namespace: "
};

struct Shaping;     // patterns/guarantees.h
struct Guarantees;  // the same

// A job of a pattern as it can be told before there is one.
struct PlannedJob {
  std::string name;  // without the namespace: "outbox/relay"
  std::string does;  // "publishes committed rows to the log"
};

// The role of a pattern whose own store makes a write durable first, before anything else has it.
inline constexpr std::string_view kFirstRecord = "the first durable place of a write";

// RFC-014's pattern metadata. What is said here decides which chains are accepted (patterns/catalogue.h), so that a new
// pattern states its own place and nothing else changes.
struct PatternInfo {
  std::string_view name;                   // "claim-check"
  std::string_view version;                // "1.0.0"
  std::string_view summary;                // one sentence without its full stop
  std::vector<std::string_view> apis;      // client APIs that it works under ("pubsub"); empty: any, and none
  std::vector<BackendNeed> backends;       // what it uses; any backend that has the capabilities is compatible
  std::vector<std::string_view> gives;     // what it adds to a namespace, for people
  std::string_view role;                   // at most one pattern of a namespace has it; empty: it claims none
  std::vector<PatternConflict> conflicts;  // beside those that follow from APIs and roles; said by either of the two
  // Canonical order: a smaller rank stands further out (nearer to the client).
  int rank = 0;
  // Its span holds the spans of the patterns further out: they prepare what it writes.
  bool encloses = false;
  // These must stand after this one in the file too, since the opposite order would mean something else. Of any other
  // two the order in the file leaves no doubt, and the canonical one is made of it.
  std::vector<std::string_view> before;
  // Changes the guarantees of what stands below it to those with it; null: it leaves them as they are.
  void (*shape)(const Shaping&, Guarantees&) = nullptr;
  std::vector<PlannedJob> (*jobs)(const config::Node& options) = nullptr;  // of valid options; null: it has none
  bool in_request = true;  // false: it works in the background or chooses the API, and is no step of a request's chain
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
  // What it has in its places (PatternType::holdings) that no other pattern would deal with: a change that takes them
  // away waits until there is nothing, or is refused. Messages are counted, or at least 1 where something is left.
  struct Unfinished {
    std::uint64_t count = 0;
    std::string what;  // reads on from a namespace's name and "has": "3 rows of table x that are not published"
  };
  virtual Task<Result<Unfinished>> unfinished(Context context);
  // Asked before the metrics are shown: brings up to date what it measures by looking (rows that wait, bytes that are
  // held), for as long as the context allows; what takes longer goes on the next time.
  virtual Task<Result<void>> measure(Context context);
  // What it holds at this moment ("pending": "3"). May take as long as reading all of it.
  virtual Task<Result<Facts>> inspect(Context context);
  // Takes what is below and gives what the layer above sees; registers its jobs with the assembly. May do I/O (make a
  // table).
  virtual Task<Result<Ports>> wrap(Context context, Ports below, Assembly& assembly) = 0;
};

}  // namespace prism
