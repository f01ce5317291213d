#include "backends/postgres/transaction.h"

#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <set>
#include <utility>

#include "backends/postgres/values.h"

namespace prism::postgres {
namespace {

Error over_with(Code code, std::string reason, std::string message, std::string hint, Retry retry) {
  return {code, std::move(reason), std::move(message), std::move(hint), retry, {}, {}};
}
Error expired() {
  return over_with(Code::aborted, "TRANSACTION_EXPIRED", "the transaction was open for too long and was rolled back",
                   "finish transactions sooner, or ask for a longer time", Retry::safe);
}
Error ended() {
  return over_with(Code::failed_precondition, "TRANSACTION_ENDED", "the transaction is over", "begin another one",
                   Retry::never);
}

std::string_view to_sql(Isolation isolation) {
  switch (isolation) {
    case Isolation::read_committed:
      return "READ COMMITTED";
    case Isolation::repeatable_read:
      return "REPEATABLE READ";
    case Isolation::serializable:
      return "SERIALIZABLE";
  }
  return "READ COMMITTED";
}

// What the owner and the timer share; on the loop's thread only.
struct Open : std::enable_shared_from_this<Open> {
  Open(std::shared_ptr<Client> c, Held h, TxOptions o)
      : client(std::move(c)), held(std::move(h)), options(o), timer(client->loop().io(), options.timeout) {}

  void watch() {
    timer.async_wait([weak = weak_from_this()](const asio::error_code& error) {
      const auto self = weak.lock();
      if (error || !self || self->over || self->committing) return;
      self->finish(expired());
    });
  }
  // Whatever runs is cancelled; what was done is rolled back.
  void finish(Error why) {
    if (over) return;
    over = std::move(why);
    timer.cancel();
    if (held.session()) held->abandon();
  }
  void fail_with(const Error& error) {
    finish(over_with(Code::failed_precondition, "TRANSACTION_FAILED",
                     "the transaction was rolled back: " + error.describe(), "begin another one", Retry::never));
  }
  std::string begin_text() const {
    if (options.read_only) return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    return "BEGIN ISOLATION LEVEL " + std::string(to_sql(client->options().isolation)) + " READ WRITE";
  }

  std::shared_ptr<Client> client;
  Held held;
  TxOptions options;
  asio::steady_timer timer;
  std::optional<Error> over;
  bool begun = false;
  bool committing = false;
  std::set<std::string> changed;
};

class Transaction final : public SqlTransaction {
 public:
  explicit Transaction(std::shared_ptr<Open> open) : open_(std::move(open)) {}
  ~Transaction() override {
    // The timer belongs to the loop.
    asio::post(open_->client->loop().io(), [open = std::move(open_)] {
      open->finish(ended());
      open->timer.cancel();
    });
  }

  Task<Result<Batch<SqlRows>>> execute(Context context, Batch<Statement> statements) override {
    const auto open = open_;
    co_await resume_on(open->client->loop());
    if (open->over) co_return std::unexpected(*open->over);
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (statements.empty()) co_return Batch<SqlRows>();
    for (std::size_t i = 0; i < statements.size(); ++i) {
      auto good = check_statement(statements[i]);
      if (good) continue;
      Error error = std::move(good).error().with("statement", std::to_string(i));
      open->fail_with(error);
      co_return std::unexpected(std::move(error));
    }
    const auto owned = std::make_shared<const Batch<Statement>>(std::move(statements));
    const auto flight = std::make_shared<Flight>();
    if (!std::exchange(open->begun, true)) flight->items.push_back(Item::control(open->begin_text()));
    if (auto limit = open->client->time_limit(context); !limit.empty())
      flight->items.push_back(Item::control(std::move(limit)));
    const std::size_t first = flight->items.size();
    for (const auto& statement : *owned) flight->items.push_back(Item::of(statement));
    flight->items.push_back(Item::sync());
    const bool answered = co_await open->held->run(context, flight, owned);
    if (open->over) co_return std::unexpected(*open->over);  // its time came while it ran
    auto failed = [&](Error error) -> Result<Batch<SqlRows>> {
      open->fail_with(error);
      // Nothing of it is left: whoever repeats the whole transaction does no harm.
      if (error.retry == Retry::unknown_outcome || error.code == Code::cancelled) error.retry = Retry::safe;
      return std::unexpected(std::move(error));
    };
    if (!answered) co_return failed(context.over(false));
    if (flight->lost) co_return failed(open->client->lost(*flight, true));
    for (std::size_t i = 0; i < flight->items.size(); ++i) {
      auto& outcome = flight->items[i].outcome;
      if (!outcome || *outcome) continue;
      Error error = std::move(*outcome).error();
      if (error.reason == "SQL_TOO_SLOW" && context.stopped()) error = context.over(false);
      if (is_stale_statement(error)) {
        open->held->connection().forget_statements();
        error.retry = Retry::safe;
      }
      if (i >= first && i - first < owned->size())
        error.metadata.insert_or_assign("statement", std::to_string(i - first));
      co_return failed(std::move(error));
    }
    Batch<SqlRows> out;
    for (std::size_t i = 0; i < owned->size(); ++i) {
      out.push_back(std::move(**flight->items[first + i].outcome));
      if (auto table = changed_table((*owned)[i].text); !table.empty()) open->changed.insert(std::move(table));
    }
    co_return out;
  }

  Task<Result<Position>> commit(Context context) override {
    const auto open = open_;
    co_await resume_on(open->client->loop());
    if (open->over) co_return std::unexpected(*open->over);
    if (context.stopped()) co_return std::unexpected(context.over(false));
    open->committing = true;
    const auto flight = std::make_shared<Flight>();
    if (open->begun) {
      flight->items.push_back(Item::control("COMMIT"));
      flight->items.push_back(Item::sync());
    }
    const std::size_t at = flight->items.size();
    flight->items.push_back(Item::of(position_statement()));
    flight->items.push_back(Item::sync());
    const bool answered = co_await open->held->run(context, flight, nullptr, /*cancels=*/false);
    if (!answered) {
      // Let it come to its end: a commit that is cancelled half way is worth nothing to anybody.
      open->over = ended();
      open->client->changed(open->changed);
      co_return std::unexpected(context.over(open->begun));
    }
    if (open->begun) {
      const auto& committed = flight->items[0].outcome;
      if (committed && !*committed) {
        Error error = committed->error();
        open->fail_with(error);
        co_return std::unexpected(std::move(error));
      }
      const auto& sync = flight->items[1].outcome;
      if (flight->lost && !sync) {
        const Error error = open->client->lost(*flight, open->options.read_only);
        open->finish(ended());
        open->client->changed(open->changed);
        co_return std::unexpected(error);
      }
      if (flight->items[0].tag != "COMMIT") {
        const Error error = over_with(Code::failed_precondition, "TRANSACTION_FAILED",
                                      "the server rolled the transaction back", "begin another one", Retry::safe);
        open->finish(error);
        co_return std::unexpected(error);
      }
    }
    const std::uint64_t position = read_position(flight->items[at].outcome);
    if (!open->changed.empty()) open->client->changed(open->changed);
    open->finish(ended());
    co_return open->client->position(position);
  }

  Task<void> rollback(Context /*context*/) override {
    const auto open = open_;
    co_await resume_on(open->client->loop());
    open->finish(ended());  // the server does it in its own time; nobody sees what was done meanwhile
  }

 private:
  std::shared_ptr<Open> open_;
};

}  // namespace

std::unique_ptr<SqlTransaction> make_transaction(std::shared_ptr<Client> client, Held held, TxOptions options) {
  auto open = std::make_shared<Open>(std::move(client), std::move(held), options);
  open->watch();
  return std::make_unique<Transaction>(std::move(open));
}

}  // namespace prism::postgres
