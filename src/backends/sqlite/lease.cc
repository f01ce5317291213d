#include "backends/sqlite/lease.h"

#include <algorithm>
#include <limits>

namespace prism::sqlite {
namespace {

// granted: when the row was last written, to notice a clock that was set back.
constexpr const char* kDdl =
    "CREATE TABLE IF NOT EXISTS prism_lease (name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT "
    "NULL, "
    "granted INTEGER NOT NULL, expires INTEGER NOT NULL) STRICT;";

constexpr Clock::duration kMostMargin = std::chrono::milliseconds(500);
constexpr Clock::duration kLongest = std::chrono::years(10);
constexpr std::int64_t kClockJitter = std::chrono::microseconds(std::chrono::seconds(5)).count();

std::int64_t now_micros() { return wall_now().time_since_epoch().count(); }
std::int64_t micros(Clock::duration d) { return std::chrono::duration_cast<std::chrono::microseconds>(d).count(); }

// The steady and the wall clock need not run at the same speed: the holder stops a little sooner than the lease does.
Clock::time_point safe_until(Clock::time_point asked, Clock::duration ttl) {
  return asked + ttl - std::min(ttl / 10, kMostMargin);
}

std::unexpected<Error> lost(const Grant& grant) {
  return fail(Code::aborted, "LEASE_LOST", "the lease \"" + grant.name + "\" is not " + grant.holder + "'s any more");
}

class FileLease final : public Lease {
 public:
  explicit FileLease(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}

  Task<Result<std::optional<Grant>>> acquire(Context context, std::string name, std::string holder,
                                             Clock::duration ttl) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (name.empty() || holder.empty() || ttl <= Clock::duration(0)) {
      co_return fail(Code::invalid_argument, "INVALID_LEASE", "a lease needs a name, a holder and a positive time");
    }
    ttl = std::min(ttl, kLongest);
    const auto asked = Clock::now();
    co_return co_await engine_->write(context, [name, holder, ttl, asked](Connection& connection) {
      return take(connection, name, holder, ttl, asked);
    });
  }

  Task<Result<Grant>> renew(Context context, Grant grant, Clock::duration ttl) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (ttl <= Clock::duration(0))
      co_return fail(Code::invalid_argument, "INVALID_LEASE", "a lease needs a positive time");
    ttl = std::min(ttl, kLongest);
    const auto asked = Clock::now();
    // One that has run out and that nobody took is still its holder's.
    co_return co_await engine_->write(context, [grant, ttl, asked](Connection& connection) -> Result<Grant> {
      PRISM_TRY(Query query, connection.prepare("UPDATE prism_lease SET granted = ?4, expires = ?5 "
                                                "WHERE name = ?1 AND holder = ?2 AND fence = ?3"));
      const std::int64_t now = now_micros();
      query.bind_text_view(1, grant.name)
          .bind_text_view(2, grant.holder)
          .bind(3, static_cast<std::int64_t>(grant.fence));
      query.bind(4, now).bind(5, now + micros(ttl));
      PRISM_CHECK(query.run());
      if (connection.changes() == 0) return lost(grant);
      Grant out = grant;
      out.safe_until = safe_until(asked, ttl);
      return out;
    });
  }

  Task<void> release(Context context, Grant grant) override {
    (void)co_await engine_->write(std::move(context), [grant](Connection& connection) -> Result<void> {
      // The row stays: its fence must go on growing.
      PRISM_TRY(Query query, connection.prepare("UPDATE prism_lease SET holder = '', expires = 0 "
                                                "WHERE name = ?1 AND holder = ?2 AND fence = ?3"));
      query.bind_text_view(1, grant.name)
          .bind_text_view(2, grant.holder)
          .bind(3, static_cast<std::int64_t>(grant.fence));
      return query.run();
    });
  }

  std::optional<Statement> guard(const Grant& grant) const override {
    return Statement{
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM prism_lease WHERE name = $1 AND holder = $2 AND fence = $3) THEN 1 "
        "ELSE prism_fail('LEASE_LOST') END",
        {grant.name, grant.holder, static_cast<std::int64_t>(grant.fence)}};
  }

 private:
  static Result<std::optional<Grant>> take(Connection& connection, const std::string& name, const std::string& holder,
                                           Clock::duration ttl, Clock::time_point asked) {
    const std::int64_t now = now_micros();
    std::int64_t expires = now + micros(ttl);
    std::int64_t fence = 1;
    {
      PRISM_TRY(Query query,
                connection.prepare("SELECT holder, fence, granted, expires FROM prism_lease WHERE name = ?1"));
      query.bind_text_view(1, name);
      PRISM_TRY(const bool present, query.step());
      if (present) {
        // A lease granted in the future: the clock was set back, and its end would come far too late.
        const bool held = !query.text(0).empty() && query.integer(3) > now && query.integer(2) <= now + kClockJitter;
        if (held && query.text(0) != holder) return std::optional<Grant>();
        fence = query.integer(1) + (held ? 0 : 1);
        // The earlier grant of the same holder may be in use for as long as it says.
        if (held) expires = std::max(expires, query.integer(3));
      }
    }
    PRISM_TRY(Query query,
              connection.prepare(
                  "INSERT INTO prism_lease (name, holder, fence, granted, expires) VALUES (?1, ?2, ?3, ?4, ?5) "
                  "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, "
                  "granted = excluded.granted, expires = excluded.expires"));
    query.bind_text_view(1, name).bind_text_view(2, holder).bind(3, fence).bind(4, now).bind(5, expires);
    PRISM_CHECK(query.run());
    return Grant{.name = name,
                 .holder = holder,
                 .fence = static_cast<std::uint64_t>(fence),
                 .safe_until = safe_until(asked, ttl)};
  }

  std::shared_ptr<Engine> engine_;
};

}  // namespace

Task<Result<std::shared_ptr<Lease>>> open_lease(Context context, std::shared_ptr<Engine> engine) {
  auto made =
      co_await engine->write(std::move(context), [](Connection& connection) { return connection.execute(kDdl); });
  if (!made) co_return std::unexpected(std::move(made).error());
  co_return std::make_shared<FileLease>(std::move(engine));
}

}  // namespace prism::sqlite
