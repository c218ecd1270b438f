package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	minPasswordRunes = 12
	maxPasswordBytes = 1024
	shortestTelltale = 4 // shorter names may occur in a password by chance
	fewestDifferent  = 5 // characters
)

// commonPasswords are long enough and guessed first all the same.
var commonPasswords = []string{
	"123456789012", "1234567890123", "12345678901234", "123456789012345", "1234567890123456",
	"123123123123", "0123456789012", "098765432109", "abcdefghijkl", "abcdefghijklm", "abcd12345678",
	"1q2w3e4r5t6y", "1qaz2wsx3edc", "1qaz2wsx3edc4rfv", "qwertyuiop12", "qwertyuiop123", "qwertyuiop[]",
	"qwertyuiopas", "qwerty123456", "asdfghjkl123", "zaq12wsxcde3", "password1234", "password12345",
	"password123456", "passwordpassword", "password!234", "passw0rd1234", "p@ssw0rd1234", "mypassword123",
	"administrator", "administrator1", "admin1234567", "admin12345678", "adminadminadmin", "rootrootroot",
	"changeme1234", "changemechangeme", "changeme123!", "letmeinletmein", "letmein12345", "welcome12345",
	"iloveyou1234", "iloveyouiloveyou", "trustno1trustno1", "correcthorsebatterystaple",
	"defaultpassword", "default12345", "secretsecret", "topsecret123", "supersecret123",
	"headgate1234", "headgate12345", "headgateheadgate", "headgatepassword", "mosquitto1234", "mqttmqttmqtt",
	"mqttpassword", "gatewaygateway", "gateway12345", "operator1234", "operatoroperator", "industrial123",
}

// CheckPassword says whether password may be user's, and if not, what to do.
// It asks for length, not for kinds of characters.
func CheckPassword(user string, password Secret) error {
	if len(password) > maxPasswordBytes {
		return fmt.Errorf("the password is over %d bytes: choose a shorter one", maxPasswordBytes)
	}
	if utf8.RuneCount(password) < minPasswordRunes {
		return fmt.Errorf("the password is too short: use at least %d characters, four words for example", minPasswordRunes)
	}
	lower := strings.ToLower(string(password))
	if len(user) >= shortestTelltale && strings.Contains(lower, strings.ToLower(user)) {
		return errors.New("the password contains the user's name: choose one that does not")
	}
	if slices.Contains(commonPasswords, lower) || monotonous(lower) {
		return errors.New("the password is among the first that are guessed: choose another, four random words for example")
	}
	return nil
}

// monotonous reports whether s is made of very few different characters.
func monotonous(s string) bool {
	var seen []rune
	for _, r := range s {
		if !slices.Contains(seen, r) {
			seen = append(seen, r)
		}
		if len(seen) >= fewestDifferent {
			return false
		}
	}
	return true
}
