#include "backends/client/object_key_values.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "backends/client/key_names.h"
#include "base/crc32c.h"
#include "base/ids.h"
#include "base/text.h"
#include "runtime/scope.h"

namespace prism::client {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxKey = 300;  // its name is at most three times as long, and S3's keys have 1024 bytes
constexpr std::size_t kMaxValue = 16UL << 20;
constexpr std::size_t kAtOnce = 16;  // requests of one call
constexpr std::size_t kListed = 1000;
constexpr int kMaxTries = 1000;  // of one write that others get in the way of
constexpr auto kKept = 1h;       // what has been deleted or has expired

// What stands before the value. All numbers little-endian:
//   "PKV1" | flags (1 byte) and 3 of zero | version (8) | expiry in microseconds, 0: none (8) | name of the write (8) |
//   CRC-32C of the value (4) | CRC-32C of all that before (4)
struct Header {
  static constexpr std::size_t kSize = 40;
  bool deleted = false;
  std::uint64_t version = 0;
  std::int64_t expires = 0;
  std::uint64_t write = 0;  // random, so that no two contents are the same, and no two etags
  std::uint32_t crc = 0;    // of the value

  bool live(WallTime now) const noexcept {
    return !deleted && (expires == 0 || expires > now.time_since_epoch().count());
  }
};

template <class T>
void put(char* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
}
template <class T>
T take(const char* at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(at[i])) << (8 * i);
  return static_cast<T>(value);
}

std::string encode(const Header& header) {
  std::string out(Header::kSize, '\0');
  std::memcpy(out.data(), "PKV1", 4);
  out[4] = header.deleted ? 1 : 0;
  put(out.data() + 8, header.version);
  put(out.data() + 16, header.expires);
  put(out.data() + 24, header.write);
  put(out.data() + 32, header.crc);
  put(out.data() + 36, crc32c(0, std::string_view(out).substr(0, 36)));
  return out;
}

std::optional<Header> decode(std::string_view text) {
  if (text.size() < Header::kSize || !text.starts_with("PKV1") ||
      take<std::uint32_t>(text.data() + 36) != crc32c(0, text.substr(0, 36)))
    return std::nullopt;
  return Header{.deleted = (text[4] & 1) != 0,
                .version = take<std::uint64_t>(text.data() + 8),
                .expires = take<std::int64_t>(text.data() + 16),
                .write = take<std::uint64_t>(text.data() + 24),
                .crc = take<std::uint32_t>(text.data() + 32)};
}

// An object as it was read.
struct State {
  std::string etag;  // empty: there is none
  Header header;
  Bytes value;  // where it was asked for

  bool exists() const noexcept { return !etag.empty(); }
};

Result<void> check(const Mutation& m) {
  if (m.key.empty() || m.key.size() > kMaxKey)
    return fail(Code::invalid_argument, "INVALID_KEY", "a key has 1 to " + std::to_string(kMaxKey) + " bytes");
  if (m.value && m.value->size() > kMaxValue) {
    return fail(
        Code::invalid_argument, "VALUE_TOO_LARGE",
        "a value of " + std::to_string(m.value->size()) + " bytes; at most " + std::to_string(kMaxValue) + " are kept",
        "keep large values in an object store");
  }
  if (m.expect && m.expect_absent) {
    return fail(Code::invalid_argument, "CONTRADICTORY_CONDITIONS",
                "a version is expected of a key that is expected to be absent");
  }
  if (m.ttl && *m.ttl <= Clock::duration(0))
    return fail(Code::invalid_argument, "INVALID_TTL", "the time to live must be positive");
  return {};
}

std::uint64_t random_number() {
  const Id128 id = random_id();
  std::uint64_t out = 0;
  std::memcpy(&out, id.data(), sizeof out);
  return out;
}

Entry entry_of(const State& state) {
  Entry out{.value = state.value, .version = Version{state.header.version}, .expires = {}};
  if (state.header.expires != 0) out.expires = WallTime(std::chrono::microseconds(state.header.expires));
  return out;
}

class Store final : public KeyValueStore {
 public:
  explicit Store(ObjectKeyValues options)
      : objects_(std::move(options.objects)),
        prefix_(std::move(options.prefix)),
        remove_if_(std::move(options.remove_if)),
        features_{
            .durability = objects_->features().durability, .max_key_bytes = kMaxKey, .max_value_bytes = kMaxValue} {}

  const KeyValueFeatures& features() const noexcept override { return features_; }

  Task<Batch<Result<std::optional<Entry>>>> get(Context context, Batch<std::string> keys, Position min) override {
    Batch<Result<std::optional<Entry>>> out;
    if (keys.empty()) co_return out;
    if (auto reached = co_await check_reached(context, std::move(min)); !reached) {
      out.assign(keys.size(), fail(reached.error()));
      co_return out;
    }
    out.reserve(keys.size());
    for (std::size_t from = 0; from < keys.size(); from += kAtOnce) {
      std::vector<Task<Result<std::optional<Entry>>>> some;
      for (std::size_t i = from; i < std::min(keys.size(), from + kAtOnce); ++i)
        some.push_back(get_one(context, std::move(keys[i])));
      for (auto& one : co_await when_all(std::move(some))) out.push_back(std::move(one));
    }
    co_return out;
  }

  Task<Batch<Result<Written>>> apply(Context context, Batch<Mutation> mutations) override {
    Batch<Result<Written>> out(mutations.size());
    if (mutations.empty()) co_return out;
    auto source = co_await identity(context);
    if (!source) {
      out.assign(mutations.size(), fail(source.error()));
      co_return out;
    }
    std::map<std::string, std::vector<std::size_t>> by_key;  // in the order of the batch
    for (std::size_t i = 0; i < mutations.size(); ++i) {
      if (auto good = check(mutations[i]); !good) {
        out[i] = fail(std::move(good).error());
      } else {
        by_key[mutations[i].key].push_back(i);
      }
    }
    std::vector<Task<bool>> some;
    for (const auto& [key, indices] : by_key) {
      some.push_back(apply_key(context, *source, &mutations, indices, &out));
      if (some.size() == kAtOnce) co_await when_all(std::exchange(some, {}));
    }
    co_await when_all(std::move(some));
    co_return out;
  }

  Task<Result<KeyPage>> scan(Context context, std::string prefix, std::string after, std::size_t max_rows,
                             std::size_t max_bytes) override {
    const std::string folder = prefix_ + "k/";
    const std::string names = folder + key_name_prefix(prefix);
    KeyPage page;
    std::size_t bytes = 0;
    std::string last = after.empty() ? std::string() : folder + key_name(after);
    while (true) {
      if (context.stopped()) co_return fail(context.over(false));
      const std::size_t asked = std::min(max_rows, kListed - 1) + 1;
      PRISM_CO_TRY(const Batch<ObjectInfo> listed, co_await objects_->list(context, names, last, asked));
      if (!listed.empty()) last = listed.back().key;
      for (std::size_t from = 0; from < listed.size(); from += kAtOnce) {
        // A few at a time, and not more than may be wanted.
        std::vector<std::string> keys;
        for (std::size_t i = from; i < std::min(listed.size(), from + kAtOnce); ++i) {
          const std::string& name = listed[i].key;
          if (auto key = key_of_name(std::string_view(name).substr(folder.size()))) keys.push_back(std::move(*key));
        }
        std::vector<Task<Result<State>>> some;
        for (const std::string& key : keys) some.push_back(read(context, key, true));
        auto states = co_await when_all(std::move(some));
        const WallTime now = wall_now();
        for (std::size_t i = 0; i < states.size(); ++i) {
          if (!states[i]) co_return fail(std::move(states[i]).error());
          if (!states[i]->exists()) continue;
          if (!states[i]->header.live(now)) {
            co_await purge(context, keys[i], std::move(*states[i]));
            continue;
          }
          bytes += keys[i].size() + states[i]->value.size();
          if (page.entries.size() == max_rows || (!page.entries.empty() && bytes > max_bytes)) {
            page.more = true;
            co_return page;
          }
          page.entries.emplace_back(std::move(keys[i]), entry_of(*states[i]));
        }
      }
      if (listed.size() < asked) co_return page;
    }
  }

  Task<void> close(Context /*context*/) override { co_return; }

 private:
  std::string name_of(std::string_view key) const { return prefix_ + "k/" + key_name(key); }

  Task<Result<std::optional<Entry>>> get_one(Context context, std::string key) {
    if (key.empty() || key.size() > kMaxKey) co_return std::optional<Entry>();
    PRISM_CO_TRY(State state, co_await read(context, key, true));
    if (!state.exists()) co_return std::optional<Entry>();
    if (!state.header.live(wall_now())) {
      co_await purge(context, std::move(key), std::move(state));
      co_return std::optional<Entry>();
    }
    co_return entry_of(state);
  }

  Task<Result<State>> read(Context context, std::string key, bool with_value) {
    auto got =
        co_await objects_->get(context, name_of(key), 0, with_value ? std::nullopt : std::optional(Header::kSize));
    if (!got) {
      if (got.error().reason == "OBJECT_NOT_FOUND") co_return State();
      co_return fail(std::move(got).error());
    }
    auto& [info, payload] = *got;
    PRISM_CO_TRY(const Bytes content, co_await payload.collect(context, Header::kSize + kMaxValue));
    const auto header = decode(content.view());
    Bytes value = with_value ? content.slice(Header::kSize) : Bytes();
    if (!header || (with_value && !header->deleted && crc32c(0, value.view()) != header->crc)) {
      co_return fail(Code::data_loss, "OBJECT_DAMAGED",
                     "the object of the key '" + shown(key) + "' is damaged, or none of Prism's");
    }
    co_return State{std::move(info.etag), *header, std::move(value)};
  }

  Task<bool> apply_key(Context context, Id128 source, Batch<Mutation>* mutations, std::vector<std::size_t> indices,
                       Batch<Result<Written>>* out) {
    std::optional<State> state;
    for (const std::size_t i : indices) {
      auto version = co_await apply_one(context, std::move((*mutations)[i]), &state);
      if (version) {
        (*out)[i] = Written{.version = Version{*version},
                            .at = Position(PositionPart{.source = source, .partition = 0, .offset = *version})};
      } else {
        (*out)[i] = fail(std::move(version).error());
      }
    }
    co_return true;
  }

  // `state` is what is known of the object, if anything.
  Task<Result<std::uint64_t>> apply_one(Context context, Mutation m, std::optional<State>* state) {
    for (int tries = 0; tries < kMaxTries; ++tries) {
      if (context.stopped()) co_return fail(context.over(false));
      if (!*state) {
        PRISM_CO_TRY(*state, co_await read(context, m.key, false));
      }
      const State& old = **state;
      const WallTime now = wall_now();
      const bool present = old.exists() && old.header.live(now);
      if (m.expect_absent && present) co_return fail(Code::already_exists, "ALREADY_EXISTS", "the key exists");
      if (m.expect && (!present || old.header.version != m.expect->value)) {
        co_return fail(Code::aborted, "VERSION_MISMATCH",
                       present ? "the entry has been changed" : "the entry does not exist (any more)",
                       "read it again and repeat the change");
      }
      const auto clock = static_cast<std::uint64_t>(now.time_since_epoch().count());
      if (!m.value && !old.exists()) co_return clock;
      if (!m.value && old.header.deleted) co_return old.header.version;
      Header header{.deleted = !m.value,
                    .version = std::max(clock, old.exists() ? old.header.version + 1 : 0),
                    .expires = 0,
                    .write = random_number(),
                    .crc = m.value ? crc32c(0, m.value->view()) : 0};
      if (m.value && m.ttl) {
        const auto ttl = std::chrono::ceil<std::chrono::microseconds>(*m.ttl).count();
        if (ttl <= std::numeric_limits<std::int64_t>::max() - now.time_since_epoch().count())
          header.expires = now.time_since_epoch().count() + ttl;
      }
      std::string content = encode(header);
      if (m.value) content += m.value->view();
      auto put = co_await objects_->put(context, name_of(m.key), Payload(Bytes(std::move(content))),
                                        {.if_absent = !old.exists(), .if_match = old.etag});
      if (put) {
        *state = State{std::move(put->etag), header, {}};
        co_return header.version;
      }
      state->reset();
      // Somebody else was first: what holds now is read again.
      const std::string& reason = put.error().reason;
      if (reason != "OBJECT_EXISTS" && reason != "PRECONDITION_FAILED" && reason != "STORAGE_CONFLICT")
        co_return fail(std::move(put).error());
    }
    co_return fail(Code::aborted, "STORAGE_CONFLICT", "others change the key '" + shown(m.key) + "' all the time",
                   "repeat it", Retry::safe);
  }

  // Removes what was deleted, or has expired, long ago, on the condition that nobody has written it anew.
  Task<void> purge(Context context, std::string key, State state) {
    const auto since = std::max<std::int64_t>(state.header.deleted ? 0 : state.header.expires,
                                              static_cast<std::int64_t>(state.header.version));
    if (!remove_if_ || wall_now() - WallTime(std::chrono::microseconds(since)) < kKept) co_return;
    // A failure leaves it to the next one who passes.
    static_cast<void>(co_await remove_if_(std::move(context), name_of(key), std::move(state.etag)));
  }

  // The store's own id, made by whoever is first; with it it is found out whether the server has conditional writes.
  Task<Result<Id128>> identity(Context context) {
    if (context.stopped()) co_return fail(context.over(false));
    {
      const std::lock_guard lock(mutex_);
      if (identity_) co_return *identity_;
    }
    const std::string name = prefix_ + "id";
    for (int tries = 0; tries < 2; ++tries) {
      auto made = co_await objects_->put(context, name, Payload(Bytes(to_hex(random_id()))), {.if_absent = true});
      if (made && tries == 0) continue;  // the second one must be refused
      if (made) {
        co_return fail(Code::failed_precondition, "CONDITIONAL_WRITES_MISSING",
                       "the store ignores the conditions of writes: values by key are not safe in it",
                       "use another backend for them");
      }
      if (made.error().reason != "OBJECT_EXISTS") co_return fail(std::move(made).error());
      break;
    }
    PRISM_CO_TRY(auto got, co_await objects_->get(context, name, 0, std::nullopt));
    PRISM_CO_TRY(const Bytes content, co_await got.second.collect(context, 1024));
    const auto id = from_hex(content.view());
    if (!id) co_return fail(Code::data_loss, "OBJECT_DAMAGED", "the object '" + name + "' is damaged");
    const std::lock_guard lock(mutex_);
    identity_ = *id;
    co_return *id;
  }

  // Reads see every write that was acknowledged before: only positions of other stores are unknown.
  Task<Result<void>> check_reached(Context context, Position min) {
    if (context.stopped()) co_return fail(context.over(false));
    if (min.empty()) co_return Result<void>();
    PRISM_CO_TRY(const Id128 source, co_await identity(std::move(context)));
    const Position all(
        PositionPart{.source = source, .partition = 0, .offset = std::numeric_limits<std::uint64_t>::max()});
    if (min.compare(all) == Position::Order::reached) co_return Result<void>();
    co_return fail(Code::failed_precondition, "POSITION_UNKNOWN", "the position is of another source than this store",
                   "read without a position");
  }

  const std::shared_ptr<ObjectStore> objects_;
  const std::string prefix_;
  const std::function<Task<bool>(Context, std::string, std::string)> remove_if_;
  const KeyValueFeatures features_;
  std::mutex mutex_;
  std::optional<Id128> identity_;  // guarded by mutex_
};

}  // namespace

std::shared_ptr<KeyValueStore> make_object_key_values(ObjectKeyValues options) {
  return std::make_shared<Store>(std::move(options));
}

}  // namespace prism::client
