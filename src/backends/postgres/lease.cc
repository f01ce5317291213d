#include "backends/postgres/lease.h"

#include <algorithm>
#include <string>
#include <utility>

namespace prism::postgres {
namespace {

// granted: when the row was last written, to notice a clock that was set back.
constexpr const char* kTable = "prism_lease";
constexpr const char* kDdl =
    "CREATE TABLE prism_lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence BIGINT NOT NULL, "
    "granted TIMESTAMPTZ NOT NULL, expires TIMESTAMPTZ NOT NULL)";

// A lease that was granted in the future is not held: the clock was set back, and its end would come far too late.
#define PRISM_HELD "l.holder <> '' AND l.expires > clock_timestamp() AND l.granted <= clock_timestamp() + interval '5s'"

// Whoever finds it held by another asks no further, so that those who wait for a lease do not write to its row.
constexpr const char* kAcquire =
    "INSERT INTO prism_lease AS l (name, holder, fence, granted, expires) "
    "SELECT $1, $2, 1, clock_timestamp(), clock_timestamp() + $3 * interval '1 microsecond' "
    "WHERE NOT EXISTS (SELECT 1 FROM prism_lease l WHERE l.name = $1 AND l.holder <> $2 AND " PRISM_HELD
    ") "
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, granted = excluded.granted, "
    "fence = l.fence + CASE WHEN " PRISM_HELD
    " THEN 0 ELSE 1 END, "
    // The earlier grant of the same holder may be in use for as long as it says.
    "expires = CASE WHEN " PRISM_HELD
    " THEN greatest(l.expires, excluded.expires) ELSE excluded.expires END "
    "WHERE l.holder = excluded.holder OR NOT (" PRISM_HELD
    ") "
    "RETURNING fence";

// One that has run out and that nobody took is still its holder's.
constexpr const char* kRenew =
    "UPDATE prism_lease SET granted = clock_timestamp(), expires = clock_timestamp() + $4 * interval '1 microsecond' "
    "WHERE name = $1 AND holder = $2 AND fence = $3 RETURNING fence";

// The row stays: its fence must go on growing.
constexpr const char* kRelease =
    "UPDATE prism_lease SET holder = '', expires = '-infinity' WHERE name = $1 AND holder = $2 AND fence = $3";

// The row is locked until the transaction ends: nobody takes the lease in between. What is cast is no constant, which
// would be evaluated when the statement is planned.
const std::string& guard_text() {
  static const std::string text = "SELECT CAST(CASE WHEN count(*) = 1 THEN '1' ELSE '" + std::string(kLeaseLost) +
                                  "' END AS integer) FROM (SELECT 1 FROM prism_lease WHERE name = $1 AND holder = $2 "
                                  "AND fence = $3 FOR SHARE) held";
  return text;
}

#undef PRISM_HELD

constexpr Clock::duration kMostMargin = std::chrono::milliseconds(500);
constexpr Clock::duration kLongest = std::chrono::years(10);

std::int64_t micros(Clock::duration d) { return std::chrono::ceil<std::chrono::microseconds>(d).count(); }

// This machine's clock and the server's need not run at the same speed: the holder stops a little sooner than the lease
// does.
Clock::time_point safe_until(Clock::time_point asked, Clock::duration ttl) {
  return asked + ttl - std::min(ttl / 10, kMostMargin);
}

class TableLease final : public Lease {
 public:
  explicit TableLease(std::shared_ptr<Client> client) : client_(std::move(client)) {}

  Task<Result<std::optional<Grant>>> acquire(Context context, std::string name, std::string holder,
                                             Clock::duration ttl) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (name.empty() || holder.empty() || ttl <= Clock::duration(0)) {
      co_return fail(Code::invalid_argument, "INVALID_LEASE", "a lease needs a name, a holder and a positive time");
    }
    ttl = std::min(ttl, kLongest);
    const auto asked = Clock::now();
    PRISM_CO_TRY(const auto rows, co_await run(std::move(context), {kAcquire, {name, holder, micros(ttl)}}));
    if (rows.rows.empty()) co_return std::optional<Grant>();
    co_return Grant{.name = std::move(name),
                    .holder = std::move(holder),
                    .fence = static_cast<std::uint64_t>(std::get<std::int64_t>(rows.rows.at(0).at(0))),
                    .safe_until = safe_until(asked, ttl)};
  }

  Task<Result<Grant>> renew(Context context, Grant grant, Clock::duration ttl) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (ttl <= Clock::duration(0))
      co_return fail(Code::invalid_argument, "INVALID_LEASE", "a lease needs a positive time");
    ttl = std::min(ttl, kLongest);
    const auto asked = Clock::now();
    PRISM_CO_TRY(const auto rows,
                 co_await run(std::move(context), {kRenew, {grant.name, grant.holder, fence(grant), micros(ttl)}}));
    if (rows.rows.empty()) {
      co_return fail(Code::aborted, "LEASE_LOST",
                     "the lease \"" + grant.name + "\" is not " + grant.holder + "'s any more");
    }
    grant.safe_until = safe_until(asked, ttl);
    co_return grant;
  }

  Task<void> release(Context context, Grant grant) override {
    (void)co_await run(std::move(context), {kRelease, {grant.name, grant.holder, fence(grant)}});
  }

  std::optional<Statement> guard(const Grant& grant) const override {
    return Statement{guard_text(), {grant.name, grant.holder, fence(grant)}};
  }

 private:
  static std::int64_t fence(const Grant& grant) { return static_cast<std::int64_t>(grant.fence); }

  Task<Result<SqlRows>> run(Context context, Statement statement) {
    const auto request = std::make_shared<PointRequest>();
    request->order = std::get<std::string>(statement.bind[0]);
    request->quiet = true;
    request->statements.push_back(std::move(statement));
    PRISM_CO_TRY(auto answer, co_await repeated(client_, context, [client = client_, request](Context c) {
                   return client->on_table(std::move(c), kTable, {kDdl}, request);
                 }));
    co_return std::move(answer.results.at(0));
  }

  std::shared_ptr<Client> client_;
};

}  // namespace

std::shared_ptr<Lease> make_lease(std::shared_ptr<Client> client) {
  return std::make_shared<TableLease>(std::move(client));
}

}  // namespace prism::postgres
