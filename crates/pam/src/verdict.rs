//! What PAM's return codes mean to a person. The log has the code.
//!
//! Invariant: before it is proven who asks, nothing is told about the account: every failure of the proof is `Credentials`, or
//! of the system.

use pam_client2::ErrorCode;
use portreeve_model::wire::pam::PamRefusal;

/// Of pam_authenticate(3).
pub(crate) fn of_proof(code: ErrorCode) -> PamRefusal {
    match code {
        ErrorCode::AUTH_ERR
        | ErrorCode::USER_UNKNOWN
        | ErrorCode::CRED_INSUFFICIENT
        | ErrorCode::PERM_DENIED
        | ErrorCode::ACCT_EXPIRED
        | ErrorCode::NEW_AUTHTOK_REQD
        | ErrorCode::AUTHTOK_EXPIRED
        | ErrorCode::CRED_ERR
        | ErrorCode::CRED_EXPIRED
        | ErrorCode::AUTHTOK_ERR => PamRefusal::Credentials,
        ErrorCode::MAXTRIES => PamRefusal::TooManyTries,
        _ => PamRefusal::System,
    }
}

/// Of pam_acct_mgmt(3), and of pam_open_session(3).
pub(crate) fn of_account(code: ErrorCode) -> PamRefusal {
    match code {
        ErrorCode::ACCT_EXPIRED
        | ErrorCode::AUTH_ERR
        | ErrorCode::PERM_DENIED
        | ErrorCode::USER_UNKNOWN
        | ErrorCode::CRED_EXPIRED => PamRefusal::Account,
        ErrorCode::NEW_AUTHTOK_REQD | ErrorCode::AUTHTOK_EXPIRED => PamRefusal::PasswordExpired,
        ErrorCode::MAXTRIES => PamRefusal::TooManyTries,
        _ => PamRefusal::System,
    }
}

/// Of pam_chauthtok(3).
pub(crate) fn of_change(code: ErrorCode) -> PamRefusal {
    match code {
        ErrorCode::OPEN_ERR
        | ErrorCode::SYMBOL_ERR
        | ErrorCode::SERVICE_ERR
        | ErrorCode::SYSTEM_ERR
        | ErrorCode::BUF_ERR
        | ErrorCode::AUTHINFO_UNAVAIL
        | ErrorCode::MODULE_UNKNOWN
        | ErrorCode::CONV_ERR
        | ErrorCode::ABORT => PamRefusal::System,
        _ => PamRefusal::PasswordExpired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_about_an_account_before_the_proof() {
        for number in 1..=31 {
            let Some(code) = ErrorCode::from_repr(number) else { continue };
            let told = of_proof(code);
            assert!(!matches!(told, PamRefusal::Account | PamRefusal::PasswordExpired), "{code:?}");
        }
        assert_eq!(of_proof(ErrorCode::USER_UNKNOWN), of_proof(ErrorCode::AUTH_ERR));
    }

    #[test]
    fn a_system_that_fails_is_not_blamed_on_the_person() {
        for code in
            [ErrorCode::AUTHINFO_UNAVAIL, ErrorCode::SYSTEM_ERR, ErrorCode::ABORT, ErrorCode::MODULE_UNKNOWN]
        {
            assert_eq!(of_proof(code), PamRefusal::System);
            assert_eq!(of_account(code), PamRefusal::System);
            assert_eq!(of_change(code), PamRefusal::System);
        }
        assert_eq!(of_account(ErrorCode::ACCT_EXPIRED), PamRefusal::Account);
        assert_eq!(of_account(ErrorCode::NEW_AUTHTOK_REQD), PamRefusal::PasswordExpired);
        assert_eq!(of_change(ErrorCode::AUTHTOK_ERR), PamRefusal::PasswordExpired);
    }
}
